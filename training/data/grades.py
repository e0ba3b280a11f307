"""What a person's judgement says: label or grade, soft target and gain of a row.

Knows labels, grades and how people write them; does not know queries or products.
Invariant: targets and gains lie in [0, 1], and a grade is one of the four classes that are served.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from training.data.formats import folded, shown
from training.data.tables import Line, number_text
from training.sections.data import SourceRecipe

TARGETS = {
    "E": 1.0,
    "S": 0.5,
    "C": 0.0,
    "I": 0.0,
}  # soft targets: the paper's three grades on ESCI's four labels
GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}  # evaluation gains of the ESCI task
GRADES = {"E": 3, "S": 2, "C": 1, "I": 0}
GRADE_TARGETS = (0.0, 0.0, 0.5, 1.0)
LABEL_NAMES = {"e": "E", "s": "S", "c": "C", "i": "I"} | {
    "exact": "E",
    "substitute": "S",
    "complement": "C",
    "irrelevant": "I",
}
BEST = len(GRADE_TARGETS) - 1

Row = dict[str, Any]
Value = TypeVar("Value")


def judged(row: Row) -> Row:
    """Fill label, grade, target and gain of a row that has a `label`, a `grade` (0 to 3), or a `target` and a `gain`.

    A judgement that comes with its own gain has the nearest grade to it: half of the gain is half of the way up.

    >>> judged({"target": 0.4, "gain": 0.75})["grade"]
    2
    """
    if label := row.get("label"):
        return row | {"grade": GRADES[label], "target": TARGETS[label], "gain": GAINS[label]}
    if "gain" in row:
        return row | {"label": None, "grade": int(row["gain"] * BEST + 0.5)}
    grade = row["grade"]
    return row | {"label": None, "target": GRADE_TARGETS[grade], "gain": grade / BEST}


def told(line: Line) -> tuple[str, str]:
    """Return the column of a row's judgement, label before grade, and what stands there; empty if neither does."""
    return next(
        ((column, text) for column in ("label", "grade") if (text := line.text(column))), ("label", "")
    )


def verdict(line: Line, source: SourceRecipe) -> Row:
    """Return what a row's label or, without one, its grade says; DataError if it has neither, or one out of range.

    The source's `grades` come first, then its `label_map`; both say what stands in either column, in any case.
    """
    column, text = told(line)
    if not text:
        raise line.fault(
            "label", "no value, and no grade; a row needs a label (E, S, C, I) or a grade (0 to 3)"
        )
    if worth := _found(source.grades, text):
        return {"target": worth.target, "gain": worth.gain}
    label = _found(source.label_map, text) or (LABEL_NAMES.get(folded(text)) if column == "label" else None)
    if label:
        return {"label": label}
    if column == "grade" and (grade := number(text)) in range(BEST + 1):
        return {"grade": int(grade)}
    expected = "E, S, C and I" if column == "label" else "0, 1, 2 and 3"
    raise line.fault(
        column,
        f"{shown(text)} is none of {expected}; [data.sources.grades], or --grade, says what other {column}s are worth",
    )


def number(text: str) -> float:
    """Return the number that a text is, NaN if it is none; a comma is what spreadsheets write in half of Europe.

    >>> number("2,5")
    2.5
    """
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def _found(known: Mapping[str, Value], text: str) -> Value | None:
    if text in known or not known:
        return known.get(text)
    return {_key(name): value for name, value in known.items()}.get(_key(text))


def _key(text: str) -> str:
    return number_text(number(text)) or folded(text)
