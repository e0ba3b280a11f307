"""A table's rows as a person brought them: where each lies in its file, and its cells as texts.

Knows what a cell may hold; does not know file formats, nor what the columns mean.
Invariant: a cell is text, texts or missing, or a DataError says in one line which file, row and column is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from training.data.formats import Cells, folded, read_rows, shown
from training.errors import DataError

# what programs write for a value that is not there; a text like "none" or "N/A" is somebody's own
MISSING = frozenset({"nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "#N/A"})


@dataclass(frozen=True, slots=True)
class Line:
    """A row and its place in the file: CSV rows count from the header on, as in a spreadsheet, others from 1.

    `names` says under which names, in any case, the file may have a column of ours.
    """

    path: Path
    row: int
    cells: Cells
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def text(self, column: str) -> str:
        """Return the text of a cell without the space around it, a number as text; empty if it is missing."""
        return self._text(column, self._cell(column)).strip()

    def texts(self, column: str) -> str:
        """Return the text of a cell as it is, a list of texts as one line for each; empty if it is missing."""
        cell = self._cell(column)
        if not isinstance(cell, list):
            return self._text(column, cell)
        return "\n".join(part for each in cell if (part := self._text(column, each)))

    def needed(self, column: str, *, joined: bool = False) -> str:
        """Return the text of a cell, or of a list of texts if it may be `joined`; DataError if that is blank."""
        found = self.texts(column) if joined else self.text(column)
        if not found.strip():
            raise self.fault(column, self._absence(column))
        return found

    def fault(self, column: str, problem: str) -> DataError:
        """Return the error that names this row and the file's own name of a column."""
        return DataError(f"{self.path} row {self.row}, column {self._name(column)}: {problem}")

    def _name(self, column: str) -> str:
        names = self.names.get(column, (column,))
        return next((name for name in names if folded(name) in self.cells), names[0])

    def _cell(self, column: str) -> Any:
        return self.cells.get(folded(self._name(column)) if column in self.names else column)

    def _absence(self, column: str) -> str:
        if folded(self._name(column)) in self.cells:
            return "no value"
        remedy = "; [data.sources.columns], or --column, maps yours" if self.names else ""
        return f"no such column among {shown(', '.join(self.cells))}{remedy}"

    def _text(self, column: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise self.fault(column, f"not UTF-8 (byte 0x{value[error.start]:02x})") from error
        if isinstance(value, str):
            return "" if value.strip() in MISSING else well_formed(value)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return number_text(value)
        raise self.fault(column, f"expected a text, found {shown(value)}")


def well_formed(text: str) -> str:
    r"""Return the text with U+FFFD for every half of a surrogate pair, which no encoding has.

    >>> well_formed("Mouse \ud83d pad") == "Mouse \ufffd pad"
    True
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number_text(value: float | Decimal) -> str:
    """Return a number as text, the same for 2 and 2.0, and nothing for NaN and the infinities.

    >>> number_text(2.0), number_text(0.5), number_text(float("nan"))
    ('2', '0.5', '')
    """
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else str(value)


def read_lines(path: Path, names: Mapping[str, Sequence[str]] | None = None) -> Iterator[Line]:
    """Yield the rows of a table; blank ones are nothing. DataError says where it cannot be read."""
    return (Line(path, row, cells, names or {}) for row, cells in read_rows(path))
