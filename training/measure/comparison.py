"""Several systems side by side on the same judged lists: figures, paired differences, and the queries behind them.

Knows lists and scores; does not know which model gave a score, nor how a page looks.
Invariant: every system is measured on the same lists, and every difference is paired by list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.data.lists import JudgedList
from training.measure import metrics
from training.measure.figures import Scores
from training.measure.metrics import Interval

METRICS = ("NDCG@10", "NDCG@5", "MRR", "pair accuracy")
MAIN = METRICS[0]
RELEVANT = 2  # the grade, of 0 to 3, from which a product counts for MRR: the upper half
SHOWN = 5  # products of a list that a change shows
LEGEND = (
    "In brackets: 95 % percentile bootstrap over lists. NDCG has linear gains. MRR: of the first product in the upper "
    "half of the grades. Pair accuracy: of the pairs of products of one query with different grades, those in order."
)


@dataclass(frozen=True, slots=True)
class Place:
    """A product in a ranking: its title and its judgement."""

    title: str
    grade: int


@dataclass(frozen=True, slots=True)
class Change:
    """A query under two systems: its figure, and the first products, before and after."""

    query: str
    before: float
    after: float
    first: tuple[Place, ...]
    then: tuple[Place, ...]

    @property
    def gain(self) -> float:
        """How much the second system is ahead."""
        return self.after - self.before


@dataclass(frozen=True)
class Comparison:
    """Scores of several systems on the same lists; the first system is the one that the others are compared with.

    `more` has figures of a system that its scores alone do not tell, such as its calibration, by their name.
    """

    lists: Sequence[JudgedList]
    systems: Mapping[str, Scores]
    more: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    resamples: int = 2000

    @cached_property
    def of_lists(self) -> dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
        """Every metric of every system as numerators and denominators, one per list."""
        return {name: self._ratios(scores) for name, scores in self.systems.items()}

    def _ratios(self, scores: Scores) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        rows = np.array(
            [
                (
                    metrics.ndcg(score, judged.gains, 10),
                    metrics.ndcg(score, judged.gains, 5),
                    metrics.reciprocal_rank(score, np.array(judged.grades) >= RELEVANT),
                    *metrics.pair_accuracy(score, judged.gains),
                )
                for judged, score in zip(self.lists, scores, strict=True)
            ]
        )
        ones = np.ones(len(rows))
        columns = (rows[:, 0], ones), (rows[:, 1], ones), (rows[:, 2], ones), (rows[:, 3], rows[:, 4])
        return dict(zip(METRICS, columns, strict=True))

    def figures(self, system: str) -> dict[str, Interval]:
        """Return every figure of a system with its interval."""
        own = {
            metric: metrics.mean_interval(*ratio, resamples=self.resamples)
            for metric, ratio in self.of_lists[system].items()
        }
        return own | dict(self.more.get(system, {}))

    def paired(self, system: str, other: str, metric: str = MAIN) -> Interval:
        """Return how far a system is ahead of another: an interval above 0 says that it is better."""
        ours, sizes = self.of_lists[system][metric]
        theirs, _ = self.of_lists[other][metric]
        return metrics.paired_interval(ours, theirs, sizes, resamples=self.resamples)

    def changes(self, system: str, other: str) -> list[Change]:
        """Return the queries on which a system differs from another in the main metric, its best gain first."""
        after, before = (self.of_lists[name][MAIN][0] for name in (system, other))
        order = np.argsort(before - after, kind="stable")
        return [
            Change(
                query=self.lists[at].query,
                before=float(before[at]),
                after=float(after[at]),
                first=_places(self.lists[at], self.systems[other][at]),
                then=_places(self.lists[at], self.systems[system][at]),
            )
            for at in order
            if after[at] != before[at]
        ]

    @property
    def reference(self) -> str:
        """The first system, which the others are compared with."""
        return next(iter(self.systems))

    @property
    def others(self) -> list[str]:
        """The systems after the first."""
        return list(self.systems)[1:]

    def tables(self) -> list[tuple[str, list[list[str]]]]:
        """Return each table as its heading and its rows of texts, the header first."""
        found = {name: self.figures(name) for name in self.systems}
        columns = list(dict.fromkeys(metric for each in found.values() for metric in each))
        rows = [
            [name, *(shown(each[metric]) if metric in each else "" for metric in columns)]
            for name, each in found.items()
        ]
        tables = [(f"Figures on {len(self.lists)} lists", [["system", *columns], *rows])]
        if self.others:
            paired = [
                [name, *(shown(self.paired(name, self.reference, metric), sign="+") for metric in METRICS)]
                for name in self.others
            ]
            tables.append((f"Ahead of {self.reference}, paired by list", [["system", *METRICS], *paired]))
        return tables

    def markdown(self) -> str:
        """Return the tables as Markdown."""
        parts = [LEGEND]
        for heading, (header, *rows) in self.tables():
            lines = [_line(header), "|---" * len(header) + "|", *map(_line, rows)]
            parts.append(f"### {_escaped(heading)}\n\n" + "\n".join(lines))
        return "\n\n".join(parts) + "\n"


def shown(interval: Interval, sign: str = "") -> str:
    """Return a figure as a table shows it, with its interval.

    >>> shown(Interval(0.5, 0.25, 0.75, 9))
    '0.5000 [0.2500, 0.7500]'
    """
    return f"{interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _places(judged: JudgedList, scores: NDArray[np.floating]) -> tuple[Place, ...]:
    order = np.argsort(-np.asarray(scores), kind="stable")[:SHOWN]
    return tuple(Place(judged.products[at].title, judged.grades[at]) for at in order)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
