"""File formats: what is read, and the one line that says what cannot be."""

import gzip
import json
import random
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from training.data.formats import LONGEST_CELL, read_rows  # noqa: E402
from training.errors import DataError  # noqa: E402

TABLE = 'query,title\r\nmouse,"Pad, ""big""\r\nblue"\r\n'
ROWS = [(2, {"query": "mouse", "title": 'Pad, "big"\r\nblue'})]


def rows_of(path: Path, content: bytes) -> list:
    """Write a file and read its rows."""
    path.write_bytes(content)
    return list(read_rows(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_is_read_by_its_content(tmp_path: Path, encoding: str, delimiter: str, *, packed: bool) -> None:
    """Delimiter, encoding, byte-order mark and gzip are told by the bytes, whatever the name says."""
    content = TABLE.replace("query,title", f"query{delimiter}title").replace("mouse,", f"mouse{delimiter}")
    raw = content.encode(encoding)

    assert rows_of(tmp_path / "table.dat", gzip.compress(raw) if packed else raw) == ROWS


def test_blank_rows_are_nothing_and_are_counted(tmp_path: Path) -> None:
    """Rows are numbered as a spreadsheet numbers them, those without a value included."""
    content = b"\nQuery , TITLE\n,,\n\nmouse, pad ,\n,\n"

    assert rows_of(tmp_path / "a.csv", content) == [(5, {"query": "mouse", "title": "pad"})]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    """A description of a million characters is no error."""
    ((_, cells),) = rows_of(tmp_path / "a.csv", b"query,title\nmouse," + b"x" * 1_000_000)

    assert len(cells["title"]) == 1_000_000


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json", "jl", "jsonlines", "txt"])
def test_json_lines_are_read_under_any_name(tmp_path: Path, suffix: str) -> None:
    """An object a line is JSON Lines, with or without a byte-order mark and blank lines."""
    content = b'\xef\xbb\xbf{"Query": "mouse"}\r\n\r\n{"Query": 1}\n\n'

    assert rows_of(tmp_path / f"a.{suffix}", content) == [(1, {"query": "mouse"}), (3, {"query": 1})]


def test_parquet_is_read(tmp_path: Path) -> None:
    """Parquet gives typed cells, and rows that hold nothing are nothing."""
    pq.write_table(pa.table({"Query": ["mouse", None], "grade": [2.0, None]}), tmp_path / "a.parquet")

    assert list(read_rows(tmp_path / "a.parquet")) == [(1, {"query": "mouse", "grade": 2.0})]


def test_trec_qrels_are_read(tmp_path: Path) -> None:
    """Four columns without a header, the last one a number, are a TREC judgement file."""
    assert rows_of(tmp_path / "a.qrels", b"\n101 0 d1 2\n101\t0\td2\t0\n") == [
        (2, {"query_id": "101", "iteration": "0", "product_id": "d1", "grade": "2"}),
        (3, {"query_id": "101", "iteration": "0", "product_id": "d2", "grade": "0"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "holds no row"),
        ("a.csv", b"query,title\n,\n", "holds no row"),
        ("a.jsonl", b"\n\n", "holds no row"),
        ("a.csv", b"query,title\nmouse,a,b\n", "row 2: 3 cells under 2 columns"),
        ("a.csv", b'query,title\nmouse,pad\nmouse,\'a"\nx,"open\n', "row 4: not CSV"),
        ("a.csv", b'query,title\nmouse,"27" wide"\n', "row 2: not CSV"),
        ("a.csv", b"query,title\nmouse," + b"x" * (LONGEST_CELL + 1), "row 2: not CSV"),
        ("a.csv", b"query,title,Query\n", "row 1: two columns are named 'query'"),
        (
            "a.csv",
            b"query,title\nmouse,caf\xe9\n",
            "line 2: not UTF-8, at byte offset 21 stands 0xe9; convert it",
        ),
        ("a.csv", "query,title\n".encode("utf-16") + b"x", "not UTF-16"),
        ("a.jsonl", b'{"query": "a"}\n{"query"\n', "row 2: not JSON"),
        ("a.jsonl", b'{"a":' * 100_000, "row 1: not JSON"),
        ("a.jsonl", b'{"query": ' + b"1" * 5000 + b"}", "row 1: not JSON"),
        ("a.json", b'[{"query": "a"}]', "row 1: expected one object a line, found"),
        ("a.jsonl", b"query,title\n", "row 1: not JSON"),
        ("a.qrels", b"1 0 d1 2\n1 0 d2\n", "row 2: expected query, iteration, product and grade"),
        ("a.parquet", b"query,title\n", "not a whole Parquet file"),
        ("a.parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("a.csv.gz", gzip.compress(TABLE.encode() * 99)[:-20], "cut short or damaged"),
        ("a.csv.gz", b"\x1f\x8bnot gzip", "cut short or damaged"),
        ("a.csv.gz", gzip.compress(b"a,b\n")[:-8] + b"12345678", "cut short or damaged"),
        ("a.xlsx", b"PK\x03\x04...", "save it as CSV"),
        ("a.csv.zst", b"\x28\xb5\x2f\xfd...", "zstandard"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """What cannot be read is a DataError of one line that names the file, and the row where there is one."""
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path / name, content)

    assert str(caught.value).startswith(str(tmp_path / name))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_false_gzip_is_read(tmp_path: Path) -> None:
    """A file that a browser unpacked under its old name is read by its content."""
    assert rows_of(tmp_path / "a.csv.gz", TABLE.encode()) == ROWS


@pytest.mark.parametrize("path", ["gone.csv", ".", "a\0b.csv", "x" * 300])
def test_a_path_that_is_no_file_is_one_line(tmp_path: Path, path: str) -> None:
    """A missing file, a folder and an impossible name are told as such."""
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path / path))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_no_damage_is_a_traceback(tmp_path: Path, name: str) -> None:
    """Files with bytes changed, lost or added are read or refused as DataError, never another exception."""
    rows = [{"query": f"mouse {i}", "title": "Pad é", "grade": i % 4} for i in range(40)]
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        text = "\n".join(["query,title,grade", *(f'"{r["query"]}",{r["title"]},1' for r in rows)]).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    whole = path.read_bytes()
    draw = random.Random(7)  # noqa: S311

    for _ in range(300):
        raw = bytearray(whole[: draw.randrange(1, len(whole))] if draw.random() < 0.3 else whole)
        for _ in range(draw.randrange(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        try:
            rows_of(path, bytes(raw))
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
