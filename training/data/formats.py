"""Read the rows of CSV, TSV, JSON Lines, Parquet and TREC qrels, plain or in gzip.

Knows file formats, which the content tells apart; does not know columns or what a cell may hold.
Invariant: a file that cannot be read to its end is a DataError that names it, and the row where there is one.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import DataError

JSON_SUFFIXES = {".jsonl", ".ndjson", ".json", ".jl", ".jsonlines", ".ldjson"}
PARQUET_SUFFIXES = {".parquet", ".pq"}
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"BZh": "compressed by bzip2: unpack it, or use gzip",
    b"\xfd7zXZ": "compressed by xz: unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard: unpack it, or use gzip",
}
LONGEST_CELL = 2**24  # characters; past a quote that is never closed, the rest of a file is one cell
BATCH_ROWS = 4096  # rows of a Parquet file in memory at a time
QRELS = re.compile(r"\s*\S+\s+\S+\s+\S+\s+-?\d+(\.\d+)?\s*")

Cells = dict[str, Any]  # by the folded name of the column


@lru_cache(maxsize=1024)  # asked for every cell
def folded(name: str) -> str:
    """Return the form under which two names of columns are the same.

    >>> folded(" Product_ID ")
    'product_id'
    """
    return name.strip().casefold()


def shown(value: object) -> str:
    """Return a value as a message quotes it: one line, and not for pages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_rows(path: Path) -> Iterator[tuple[int, Cells]]:
    """Yield each row's number and cells; blank rows are nothing. DataError says where it cannot be read.

    Rows of CSV are counted from the header on, as in a spreadsheet; those of other formats from 1.
    """
    empty = True
    try:
        for found in _rows(path):
            empty = False
            yield found
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip file is cut short or damaged ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except ValueError as error:
        raise DataError(f"{shown(str(path))}: cannot be read ({error})") from error
    if empty:
        raise DataError(f"{path}: holds no row")


def _rows(path: Path) -> Iterator[tuple[int, Cells]]:
    with _opened(path) as file:
        head = file.peek(8)[:8]
        foreign = next((told for magic, told in FOREIGN.items() if head.startswith(magic)), "")
        if foreign:
            raise DataError(f"{path}: {foreign}")
        if head.startswith(b"PAR1") or PARQUET_SUFFIXES & set(path.suffixes):
            yield from _parquet(path)
            return
        with io.TextIOWrapper(file, encoding=_encoding(head), newline="") as text:
            try:
                yield from _text_rows(path, text)
            except UnicodeDecodeError as error:
                raise _undecodable(path) from error


def _opened(path: Path) -> Any:
    """Open a file for its bytes, those that gzip holds if it is one."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else open(path, "rb")


def _encoding(head: bytes) -> str:
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _text_rows(path: Path, file: IO[str]) -> Iterator[tuple[int, Cells]]:
    """Tell JSON Lines, TREC qrels and CSV apart by the first line that is not blank."""
    first, above = "", []
    for first in file:
        if first.strip():
            break
        above.append(first)
    lines = chain(above, [first], file)
    if first.lstrip().startswith("{") or JSON_SUFFIXES & set(path.suffixes):
        return _json(path, lines)
    return _qrels(path, lines) if QRELS.fullmatch(first) else _csv(path, lines, _delimiter(first))


def _json(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Cells]]:
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} row {row}: not JSON ({error}); expected one object a line") from error
        if not isinstance(found, dict):
            raise DataError(f"{path} row {row}: expected one object a line, found {shown(found)}")
        yield row, _cells(path, row, list(found), list(found.values()))


def _delimiter(header: str) -> str:
    """Return the one of comma, semicolon and tab that parts a header into most columns."""
    return max(",;\t", key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter))))


def _csv(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, Cells]]:
    csv.field_size_limit(LONGEST_CELL)
    header: list[str] = []
    row = 0
    try:
        found_rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        for row, found in enumerate(found_rows, start=1):
            cells = [cell.strip() for cell in found]
            if not any(cells):
                continue
            if not header:
                header = cells
                _cells(path, row, header, header)
                continue
            if any(cells[len(header) :]):
                raise DataError(
                    f"{path} row {row}: {len(cells)} cells under {len(header)} columns; "
                    f"a text with {delimiter!r} in it is written in quotes"
                )
            yield row, _cells(path, row, header, cells)
    except csv.Error as error:
        raise DataError(
            f"{path} row {row + 1}: not CSV ({error}); a text with quotes in it is quoted, and each of them doubled"
        ) from error


def _qrels(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Cells]]:
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 4:
            raise DataError(
                f"{path} row {row}: expected query, iteration, product and grade, found {shown(line.strip())}"
            )
        yield row, dict(zip(("query_id", "iteration", "product_id", "grade"), parts, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, Cells]]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    if any(value is not None for value in values):
                        yield row, _cells(path, row, batch.schema.names, values)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _broken_parquet(path, error) from error


def _broken_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a whole Parquet file ({str(error).partition(chr(10))[0]})")


def _cells(path: Path, row: int, names: Sequence[str], values: Sequence[Any]) -> Cells:
    """Return a row's cells by the folded name of their column; what lacks a name or a value is left out."""
    cells: Cells = {}
    for name, value in zip(names, values, strict=False):
        if (key := folded(name)) in cells:
            raise DataError(f"{path} row {row}: two columns are named {shown(key)}")
        if key:
            cells[key] = value
    return cells


def _undecodable(path: Path) -> DataError:
    """Find the first byte that is not in the file's encoding."""
    before = line = 0
    with _opened(path) as file:
        encoding = _encoding(file.peek(2))
        decoder = codecs.getincrementaldecoder(encoding)()
        ended = False
        while not ended:
            block = file.read(1 << 16)
            ended = not block
            try:
                line += decoder.decode(block, final=ended).count("\n")
            except UnicodeDecodeError as error:
                at = before + len(block) - len(error.object) + error.start
                line += error.object[: error.start].count(b"\n") + 1
                return DataError(
                    f"{path} line {line}: not {encoding.removesuffix('-sig').upper()}, at byte offset {at} stands "
                    f"0x{error.object[error.start]:02x}; convert it, as by iconv -f WINDOWS-1252 -t UTF-8"
                )
            before += len(block)
    return DataError(f"{path}: its text could not be decoded a moment ago; was it changed meanwhile?")
