"""Judged lists from what a search team has, and what is said when nothing can be measured on them."""

import gzip
import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.data.judgments import few, read_judgments, usable
from training.errors import DataError


def written(path: Path, *lines: str) -> Path:
    """Write lines and return their file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def catalogue(folder: Path, *ids: str) -> Path:
    """Write a products file whose titles are made from the ids."""
    return written(
        folder / "products.jsonl", *(json.dumps({"product_id": i, "title": f"t {i}"}) for i in ids)
    )


def test_a_table_becomes_one_list_a_query(tmp_path: Path) -> None:
    """Rows of a query are one list, whose gains are shares of the highest grade in the file."""
    path = written(
        tmp_path / "own.tsv", "query\ttitle\tgrade", "hat\tRed hat\t4", "shoe\tBoot\t0", "hat\tBell\t1"
    )

    lists = read_judgments(path)

    assert [(one.dataset, one.query, tuple(p.title for p in one.products)) for one in lists] == [
        ("shop", "hat", ("Red hat", "Bell")),
        ("shop", "shoe", ("Boot",)),
    ]
    assert [list(one.gains) for one in lists] == [[1.0, 0.25], [0.0]]
    assert lists[0].grades == (3, 1)


def test_quepid_and_its_own_scale(tmp_path: Path) -> None:
    """A Quepid export takes its texts from the products; `grades` says what a rating is worth, in whatever form."""
    path = written(tmp_path / "case.csv", "query,docid,rating", "hat,1,3.0", "hat,2,1", "unrated")

    (judged,) = read_judgments(path, products=catalogue(tmp_path, "1", "2"), grades={"3": 0.8, "1": 0.2})

    assert (judged.product_ids, list(judged.gains)) == (("1", "2"), [0.8, 0.2])


def test_qrels_with_binary_and_negative_grades(tmp_path: Path) -> None:
    """Qrels take queries and products from their files; 1 of 1 is the best grade, and less than nothing is nothing."""
    path = written(tmp_path / "test.qrels", "101 0 a 1", "101 0 b 0", "101 0 c -1")
    queries = written(tmp_path / "queries.csv", "query_id,query", "101,hat")

    (judged,) = read_judgments(path, products=catalogue(tmp_path, "a", "b", "c"), queries=queries)

    assert (judged.query_id, judged.query, judged.grades) == ("101", "hat", (3, 0, 0))


def test_a_judged_folder_is_read(tmp_path: Path) -> None:
    """A folder of three files is what it is in a recipe, with labels as ESCI has them."""
    files = {
        "queries.jsonl.gz": ['{"query_id": 1, "query": "hat"}'],
        "products.jsonl.gz": ['{"product_id": "a", "title": "Hat"}', '{"product_id": "b", "title": "Cap"}'],
        "judgements.csv.gz": ["query_id,product_id,label,grade", "1,a,E,", "1,b,S,"],
    }
    for name, lines in files.items():
        (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode()))

    (judged,) = read_judgments(tmp_path)

    assert (judged.labels, list(judged.gains)) == (("E", "S"), [1.0, 0.1])


def test_the_lists_own_order_is_kept(tmp_path: Path) -> None:
    """A column named rank, position or as `columns` says is the order of the engine that the lists came from."""
    lines = ["query,title,grade,place", "hat,Hat,1,2", "hat,Cap,0,1", "hat,Bell,0,", "shoe,Boot,1,"]

    lists = read_judgments(written(tmp_path / "own.csv", *lines), columns={"rank": "place"})

    assert [one.ranks for one in lists] == [(2.0, 1.0, None), ()]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["query,title,grade", "hat,Hat,2", "shoe,Boot,2"], "no second grade: all 2 judgements are 3"),
        (["query,title,label", "hat,Hat,E", "hat,Cap,E"], "no second grade: all 2 judgements are 'E'"),
        (["query,title,grade", "hat,Hat,0", "hat,Cap,0"], "no second grade"),
        (["query,title,grade", "hat,Hat,2", "shoe,Boot,0"], "no query has products of two different grades"),
        (["query,title,grade", "hat,Hat,good", "hat,Cap,bad"], "'good' is none of 0, 1, 2 and 3"),
    ],
)
def test_what_cannot_be_measured_on_is_refused(tmp_path: Path, lines: list[str], told: str) -> None:
    """One grade alone, one product a query or an unknown grade is an error in one line that says so."""
    with pytest.raises(DataError, match=told) as refused:
        read_judgments(written(tmp_path / "own.csv", *lines))

    assert "\n" not in str(refused.value)


def test_a_rank_that_is_none_is_refused_where_it_is_named(tmp_path: Path) -> None:
    """A column that happens to be called rank may hold anything; one that is named as the rank holds numbers."""
    path = written(tmp_path / "own.csv", "query,title,grade,rank", "hat,Hat,1,first", "hat,Cap,0,2")

    assert [one.ranks for one in read_judgments(path)] == [(None, 2.0)]
    with pytest.raises(DataError, match="column rank: 'first' is no number"):
        read_judgments(path, columns={"rank": "rank"})


def test_products_that_are_missing_are_counted(tmp_path: Path) -> None:
    """The first judged product without a text is named, with the number of the others."""
    path = written(
        tmp_path / "own.csv", "query,product_id,grade", "a,1,2", "a,7,0", "b,8,1", "b,7,0", "b,9,0"
    )

    with pytest.raises(DataError, match=r"row 3, column product_id: '7' is in no row of .*, nor are 2 more"):
        read_judgments(path, products=catalogue(tmp_path, "1"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"columns": {"titel": "name"}}, "columns.titel"),
        ({"grades": {"3": 3}}, "grades.3.*less than or equal to 1"),
    ],
)
def test_options_that_are_wrong_are_named(
    tmp_path: Path, given: dict[str, dict[str, str]], told: str
) -> None:
    """A column that we do not have, or a gain beyond 1, is an error that names it."""
    with pytest.raises(DataError, match=told):
        read_judgments(tmp_path / "own.csv", **given)


def test_few_lists_are_told(tmp_path: Path) -> None:
    """Under twenty lists with two grades there is a warning of what that means, and none above."""
    rows = [f"q{n},{title},{grade}" for n in range(25) for title, grade in (("x", 1), ("y", int(n > 18)))]
    lists = read_judgments(written(tmp_path / "own.csv", "query,title,grade", *rows))

    assert len(usable(lists)) == 19
    assert few(lists).startswith("only 19 of 25 lists have 2 products and two grades")
    assert few([*lists, lists[0]]) == ""
