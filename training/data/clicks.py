"""Read what shoppers clicked on, as soft judgements: clicks over the clicks that a place in the list earns anyway.

Knows tables of query, product, impressions, clicks and position; does not know models.
Invariant: a gain lies in [0, 1]; it is 0.5 where clicks are just what the positions earn, and near 0.5 where few saw it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.formats import shown
from training.data.grades import number
from training.data.judgments import source_of, usable
from training.data.lists import JudgedList, lists_of
from training.data.sources import column_names, read_table
from training.data.tables import Line, read_lines
from training.errors import DataError

POSITION_PRIOR = 100.0  # impressions with the mean rate that every position begins with
PRODUCT_PRIOR = 2.0  # expected clicks, all of them made, that every product of a query begins with

CAVEAT = (
    "The lists are clicks, not judgements: they say what shoppers opened among what they were shown, where pictures, prices "
    "and the order of the page had their say. A product that was never shown counts nowhere."
)


@dataclass(slots=True)
class Seen:
    """Of one product under one query: its clicks, and those that its positions would have earned."""

    clicks: float = 0.0
    expected: float = 0.0

    @property
    def gain(self) -> float:
        """Clicks over expected clicks r, both smoothed, as r / (1 + r)."""
        ratio = (self.clicks + PRODUCT_PRIOR) / (self.expected + PRODUCT_PRIOR)
        return ratio / (1 + ratio)


def read_clicks(
    path: Path,
    *,
    products: Path | None = None,
    queries: Path | None = None,
    columns: Mapping[str, str] = {},
    name: str = "shop",
) -> list[JudgedList]:
    """Read lists whose gains are clicks over expected clicks; the files are those of `read_judgments`.

    A row has `impressions` and `clicks` in place of a grade, and `rank` or `position` if it is known where the product was
    shown; several rows of one query and product add up. A position earns its own share of clicks in the file, by the
    examination that all its products have in common: Zhang and Jones, "Comparing click logs and editorial labels for
    training query rewriting", WWW 2007. DataError if a row cannot be read or no query tells two products apart.
    """
    source = source_of(
        kind="table",
        name=name,
        path=str(path),
        queries_file=str(queries or ""),
        products_file=str(products or ""),
        columns=columns,
    )
    seen: dict[tuple[str, str], Seen] = defaultdict(Seen)
    lines = [line for line in read_lines(path, column_names(source)) if _count(line, "impressions")]
    rates = _rates(lines)
    for line in lines:
        found = seen[_key(line)]
        found.clicks += _clicks(line)
        found.expected += _count(line, "impressions") * rates[line.text("rank")]

    def worth(line: Line) -> dict[str, Any] | None:
        if (found := seen.get(_key(line))) is None:
            return None  # nobody saw it
        return {"target": found.gain, "gain": found.gain}

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_table(source, worth):
        rows.setdefault((row["query"], row["product_id"]), row | {"dataset": name})
    lists = lists_of(rows.values())
    if not usable(lists):
        raise DataError(
            f"{path}: no query has two products that clicks tell apart; bring more days of clicks"
        )
    return lists


def _rates(lines: list[Line]) -> dict[str, float]:
    """Return the share of impressions that are clicked, by position, drawn to the mean where there are few."""
    impressions: dict[str, float] = defaultdict(float)
    clicks: dict[str, float] = defaultdict(float)
    for line in lines:
        impressions[line.text("rank")] += _count(line, "impressions")
        clicks[line.text("rank")] += _clicks(line)
    mean = sum(clicks.values()) / max(sum(impressions.values()), 1.0)
    return {
        place: (clicks[place] + POSITION_PRIOR * mean) / (count + POSITION_PRIOR)
        for place, count in impressions.items()
    }


def _clicks(line: Line) -> float:
    clicks, impressions = _count(line, "clicks"), _count(line, "impressions")
    if clicks > impressions:
        raise line.fault("clicks", f"{clicks:g} clicks in {impressions:g} impressions")
    return clicks


def _count(line: Line, column: str) -> float:
    text = line.needed(column)
    value = number(text)
    if not 0 <= value < math.inf:
        raise line.fault(column, f"{shown(text)} is no count")
    return value


def _key(line: Line) -> tuple[str, str]:
    return line.text("query_id") or line.text("query"), line.text("product_id") or line.text("title")
