"""Readers, labels and splits of training.data.sources."""

import gzip
import json
import re
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from training.data.sources import (  # noqa: E402
    read_esci_parquet,
    read_judged_folder,
    read_sources,
    read_table,
)
from training.data.splits import normalize_query  # noqa: E402
from training.errors import DataError  # noqa: E402
from training.sections.data import DataRecipe, SourceRecipe, SplitRecipe  # noqa: E402

SHARED = Path(__file__).parents[4] / "shared" / "data"
CASES = Path(__file__).parents[4] / "shared" / "cases" / "files"
NAMED = {"grade-word.csv", "latin1.csv", "nan.csv", "blank-query.jsonl", "nested-title.jsonl"}


def write_gzip(path: Path, lines: list[str]) -> None:
    """Write text lines as a .gz file."""
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def judged_folder(root: Path) -> Path:
    """Make a folder in the judged format: two queries, three products."""
    queries = [
        {"query_id": f"q{i}", "query": q, "locale": "us"} for i, q in enumerate(["red shoes", "blue hat"])
    ]
    products = [{"product_id": f"p{i}", "title": f"product {i}", "brand": "b"} for i in range(3)]
    write_gzip(root / "queries.jsonl.gz", [json.dumps(q) for q in queries])
    write_gzip(root / "products.jsonl.gz", [json.dumps(p) for p in products])
    header = "query_id,product_id,label,grade,score,raw_label,source,split"
    lines = [header, "q0,p0,E,3,3,E,x,dev", "q0,p1,C,1,1,C,x,dev", "q1,p2,,2,2,2|2|2|2,x,dev"]
    write_gzip(root / "judgements.csv.gz", lines)
    return root


def esci_folder(root: Path) -> Path:
    """Make the two published ESCI files with their real column names and a few invented rows."""
    rows = [
        (0, "red shoes", 10, "A", "us", "E", 1, 1, "train"),
        (1, "red shoes", 10, "B", "us", "S", 1, 1, "train"),
        (2, "blue hat", 11, "A", "us", "I", 1, 1, "test"),
        (3, "blue hat", 11, "B", "us", "C", 0, 1, "train"),
        (4, "Sombrero", 12, "C", "es", "E", 0, 1, "train"),
    ]
    names = ["example_id", "query", "query_id", "product_id", "product_locale", "esci_label"]
    names += ["small_version", "large_version", "split"]
    pq.write_table(
        pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)}),
        root / "shopping_queries_dataset_examples.parquet",
    )
    products = [("A", "us", "Shoe"), ("B", "us", "Boot"), ("C", "es", "Sombrero")]
    columns = {"product_id": [p[0] for p in products], "product_locale": [p[1] for p in products]}
    columns |= {"product_title": [p[2] for p in products]}
    for name in ("description", "bullet_point", "brand", "color"):
        columns[f"product_{name}"] = ["x", None, ""]
    pq.write_table(pa.table(columns), root / "shopping_queries_dataset_products.parquet")
    return root


def test_judged_folder_gives_targets_and_gains(tmp_path: Path) -> None:
    """Labels and plain grades both become soft targets and evaluation gains."""
    rows = list(read_judged_folder(SourceRecipe(kind="judged", name="x", path=str(judged_folder(tmp_path)))))

    assert [(r["label"], r["grade"], r["target"], round(r["gain"], 3)) for r in rows] == [
        ("E", 3, 1.0, 1.0),
        ("C", 1, 0.0, 0.01),
        (None, 2, 0.5, 0.667),
    ]


def test_published_esci_layout_is_read(tmp_path: Path) -> None:
    """The small version is read with its test split, and missing texts become empty."""
    rows = list(
        read_esci_parquet(SourceRecipe(kind="esci_parquet", name="esci", path=str(esci_folder(tmp_path))))
    )

    assert [(r["query_id"], r["product_id"], r["label"], r.get("split")) for r in rows] == [
        ("10", "A", "E", None),
        ("10", "B", "S", None),
        ("11", "A", "I", "test"),
    ]
    assert rows[1]["description"] == ""


def test_large_esci_version_never_trains_on_a_tested_query(tmp_path: Path) -> None:
    """A training row of the large version whose query the small version tests is dropped."""
    source = SourceRecipe(
        kind="esci_parquet", name="esci", path=str(esci_folder(tmp_path)), large_version=True
    )

    assert {r["query_id"] for r in read_esci_parquet(source) if r.get("split") != "test"} == {"10", "12"}


def test_published_test_split_wins_for_every_row_of_a_query(tmp_path: Path) -> None:
    """All rows of one query share the strictest split, over all sources."""
    (tmp_path / "esci").mkdir()
    source = SourceRecipe(kind="esci_parquet", name="esci", path=str(esci_folder(tmp_path / "esci")))
    csv = tmp_path / "own.csv"
    csv.write_text("query,title,grade\nBlue  HAT!,Hat,3\n", encoding="utf-8")
    own = SourceRecipe(kind="table", name="own", path=str(csv))

    rows = read_sources(DataRecipe(sources=(source, own), split=SplitRecipe(validation=0.0, test=0.0)))

    assert {r["split"] for r in rows if normalize_query(r["query"]) == "blue hat"} == {"test"}
    assert {r["split"] for r in rows if normalize_query(r["query"]) == "red shoes"} == {"train"}


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl", "own.jsonl.gz"])
def test_own_tables_are_read_through_a_column_mapping(tmp_path: Path, name: str) -> None:
    """CSV and JSONL with foreign column names and labels become the internal schema."""
    path = tmp_path / name
    line = {"q": "red shoes", "sku": "7", "name": "Red shoe", "rel": "exact"}
    if name.endswith(".csv"):
        path.write_text(",".join(line) + "\n" + ",".join(line.values()) + "\n", encoding="utf-8")
    else:
        raw = (json.dumps(line) + "\n").encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    columns = {"query": "q", "product_id": "sku", "title": "name", "label": "rel"}
    source = SourceRecipe(kind="table", name="own", path=str(path), columns=columns, label_map={"exact": "E"})

    (row,) = read_table(source)

    assert (row["query"], row["product_id"], row["title"], row["label"]) == (
        "red shoes",
        "7",
        "Red shoe",
        "E",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("query,title\nx,y\n", "row 2, column label: no value, and no grade"),
        ("query,title,grade\n,y,3\n", "row 2, column query: no value"),
        ("query,title,grade\nx,nan,3\n", "row 2, column title: no value"),
        ("query,grade\nx,3\n", "row 2, column title: no such column among 'query, grade'"),
        ("query,title,grade\nx,y,9\n", "row 2, column grade: '9' is none of 0, 1, 2 and 3"),
        ("query,title,grade\nx,y,2.5\n", "row 2, column grade: '2.5'"),
        ("query,title,grade\nx,y,good\n", "row 2, column grade: 'good'"),
        ("query,title,grade\nx,y,1e999\n", "row 2, column grade: '1e999'"),
        ("query,title,label\nx,y,E\n\nx,z,Q\n", "row 4, column label: 'Q' is none of E, S, C and I"),
        ("query,title,rating\nx,y,-1\n", "row 2, column rating: '-1'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, told: str) -> None:
    """A cell that is missing or out of range is named by file, row and column, with what was expected."""
    path = tmp_path / "own.csv"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=re.escape(f"{path} {told}")):
        list(read_table(SourceRecipe(kind="table", name="own", path=str(path))))


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("query,title,grade\nx,y,2.0\n", 2),
        ("query;title;grade\nx;y;2,0\n", 2),
        ("Query,TITLE,Label\nx,y,e\n", 3),
        ("query, title, label\nx, y, Substitute\n", 2),
        ("query,title,label\nx,y,GOOD\n", 3),
        ("query,title,rating\nx,y,10\n", 3),
    ],
)
def test_labels_and_grades_are_read_as_people_write_them(tmp_path: Path, text: str, grade: int) -> None:
    """Grades may be floats, labels stand in any case or by name, and label_map translates either column."""
    path = tmp_path / "own.csv"
    path.write_text(text, encoding="utf-8")
    source = SourceRecipe(kind="table", name="own", path=str(path), label_map={"good": "E", "10": "E"})

    assert [row["grade"] for row in read_table(source)] == [grade]


def test_pairs_are_told_apart_by_the_exact_query(tmp_path: Path) -> None:
    """Queries of signs, or equal but for signs, are queries of their own; only the very same pair is repeated."""
    path = tmp_path / "own.csv"
    lines = [f"{query},1,book,3" for query in ("c", "c++", "c#", "!!!", "???", "c++")]
    path.write_text("\n".join(["query,product_id,title,grade", *lines]), encoding="utf-8")
    own = SourceRecipe(kind="table", name="own", path=str(path))

    rows = read_sources(DataRecipe(sources=(own,)))

    assert [row["query"] for row in rows] == ["c", "c++", "c#", "!!!", "???"]
    assert len({row["query_id"] for row in rows}) == 5
    assert len({row["split"] for row in rows[:3]}) == 1


def test_an_id_that_two_queries_have_is_told_apart(tmp_path: Path) -> None:
    """Two tables that number their queries from 1 on do not share lists."""
    for name, query in (("one", "mouse"), ("two", "table")):
        (tmp_path / name).write_text(f"query_id,query,title,grade\n1,{query},x,3\n", encoding="utf-8")
    sources = tuple(SourceRecipe(kind="table", name=n, path=str(tmp_path / n)) for n in ("one", "two"))

    assert [row["query_id"] for row in read_sources(DataRecipe(sources=sources))] == ["1", "1 table"]


def test_a_quepid_export_is_read_beside_its_catalogue(tmp_path: Path) -> None:
    """Ratings by query and docid take their texts from the products file; a query without ratings is nothing."""
    ratings = tmp_path / "case.csv"
    ratings.write_text("query,docid,rating\nmouse,7,3.0\nunrated\n +size,8,0\n", encoding="utf-8")
    products = tmp_path / "catalogue.jsonl"
    products.write_text('{"docid": 7, "title": "Mouse"}\n{"docid": "8", "title": "Mat"}\n', encoding="utf-8")
    source = SourceRecipe(kind="table", name="q", path=str(ratings), products_file=str(products))

    assert [(r["query"], r["product_id"], r["title"], r["grade"]) for r in read_table(source)] == [
        ("mouse", "7", "Mouse", 3),
        ("+size", "8", "Mat", 0),
    ]


def test_trec_qrels_are_read_beside_queries_and_products(tmp_path: Path) -> None:
    """Judgements of ids alone take their texts from two other files, whose numbers are the same ids."""
    (tmp_path / "test.qrels").write_text("101 0 d1 2\n101 0 d2 0\n", encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text('{"query_id": 101.0, "query": "mouse"}\n', encoding="utf-8")
    (tmp_path / "products.csv").write_text("id,title\nd1,Mouse\nd2,Mat\n", encoding="utf-8")
    source = SourceRecipe(
        kind="table",
        name="t",
        path=str(tmp_path / "test.qrels"),
        queries_file=str(tmp_path / "queries.jsonl"),
        products_file=str(tmp_path / "products.csv"),
        columns={"product_id": "id"},
    )

    assert [(r["query"], r["query_id"], r["product_id"], r["grade"]) for r in read_table(source)] == [
        ("mouse", "101", "d1", 2),
        ("mouse", "101", "d2", 0),
    ]


def test_a_judgement_of_an_unknown_product_is_named(tmp_path: Path) -> None:
    """A judged product that no file describes is an error that names it."""
    folder = judged_folder(tmp_path)
    write_gzip(folder / "products.jsonl.gz", [json.dumps({"product_id": "p0", "title": "product 0"})])

    with pytest.raises(DataError, match="row 3, column product_id: 'p1' is in no row of"):
        list(read_judged_folder(SourceRecipe(kind="judged", name="x", path=str(folder))))


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path that is not there is named in the error."""
    with pytest.raises(DataError, match=r"gone\.csv"):
        list(read_table(SourceRecipe(kind="table", name="own", path=str(tmp_path / "gone.csv"))))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the judged data sets are not beside this checkout")
def test_shared_sets_read_whole() -> None:
    """Both judged sets of the default recipe read without an error and hold all four grades."""
    for name in ("esci", "chorus_icecat"):
        rows = list(read_judged_folder(SourceRecipe(kind="judged", name=name, path=str(SHARED / name))))
        assert {row["grade"] for row in rows} == {0, 1, 2, 3}


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not beside this checkout")
@pytest.mark.parametrize("path", sorted(CASES.glob("*")), ids=lambda path: path.name)
def test_every_case_is_read_or_named(path: Path) -> None:
    """The files that users brought are read, or one line says where each is wrong."""
    source = SourceRecipe(kind="table", name="case", path=str(path))
    if path.name not in NAMED:
        assert list(read_table(source))
        return
    with pytest.raises(DataError, match=rf"{path.name} (row|line) \d"):
        list(read_table(source))
