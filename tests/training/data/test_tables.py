"""Cells as texts: what is missing, what is a number, and what is neither."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.data.tables import Line
from training.errors import DataError


def line(value: Any, names: dict | None = None) -> Line:
    """A row of one cell."""
    return Line(Path("shop.jsonl"), 7, {"title": value}, names or {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" Mouse ", "Mouse"),
        (0, "0"),
        (1.0, "1"),
        ("1", "1"),
        (Decimal("12.00"), "12"),
        (0.5, "0.5"),
        (10**400, "1" + "0" * 400),
        (b"Maus", "Maus"),
        ("Mouse \ud83d pad", "Mouse \ufffd pad"),
        ("\ud83d\ude00", "\U0001f600"),
        ("none", "none"),
    ],
)
def test_a_cell_is_text(value: object, text: str) -> None:
    """Integers, floats and texts of one number are the same text, and half a surrogate pair becomes U+FFFD."""
    assert line(value).text("title") == text


@pytest.mark.parametrize(
    "value", [None, "", "  ", "nan", "NaN", "NULL", "None", "<NA>", float("nan"), float("inf")]
)
def test_a_missing_value_is_named_where_it_is_needed(value: object) -> None:
    """What programs write for no value is missing, and the text nan is never made."""
    assert not line(value).text("title")
    with pytest.raises(DataError, match=r"shop\.jsonl row 7, column title: no value"):
        line(value).needed("title")


@pytest.mark.parametrize("value", [True, {"en": "Mouse"}, ["a"], datetime(2026, 1, 1, tzinfo=UTC), b"\xe9"])
def test_what_is_no_text_is_named(value: object) -> None:
    """An object, a list, a truth value, a date or bytes of another encoding are refused where one text is wanted."""
    with pytest.raises(DataError, match=r"shop\.jsonl row 7, column title: "):
        line(value).needed("title")


def test_a_list_of_texts_is_joined() -> None:
    """A list of texts gives one line for each, those that are missing left out; a list within it is refused."""
    assert line(["Mouse", None, "pad", 5]).texts("title") == "Mouse\npad\n5"
    assert line(["Mouse", "pad"]).needed("title", joined=True) == "Mouse\npad"
    with pytest.raises(DataError, match="expected a text"):
        line(["Mouse", ["pad"]]).texts("title")


def test_a_column_is_found_under_its_names() -> None:
    """A column of ours is found under the file's own name, in any case, and a message uses that name."""
    found = line({}, {"name": ("label", "Title"), "brand": ("Make",)})

    with pytest.raises(DataError, match="column Title: expected"):
        found.text("name")
    with pytest.raises(DataError, match="column Make: no such column among 'title'"):
        found.needed("brand")
