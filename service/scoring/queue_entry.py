"""PURE: a request in the queue, and the pieces of work that are made of it.

Knows lengths, costs and how many rows are left; does not know the queue, time, threads or texts.
Invariant: a row is taken at most once, and what is left costs what its tokens are of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

WORTHWHILE_TOKENS: Final = 256  # on a core: below this a second run costs more than it shares

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class QueueEntry(Generic[Owner]):
    """A request that waits: whose it is, what it is expected to cost, and the rows that are still to compute.

    `seconds(tokens, rows)` predicts a run of its `model`; rows of one model are computed together.
    """

    owner: Owner
    model: Hashable
    level: int
    tenant: str
    deadline_s: float
    cost_s: float
    seconds: Callable[[int, int], float]
    is_tokenized: bool = False
    is_over: bool = False
    waiting: dict[int, list[int]] = field(default_factory=dict)  # padded length -> rows
    _tokens: int = 0

    def set_rows(self, lengths: Sequence[int]) -> None:
        """Take in the padded lengths of all rows, which replace the expected cost by a better one."""
        for row, length in enumerate(lengths):
            self.waiting.setdefault(length, []).append(row)
        self._tokens = sum(lengths)
        self.cost_s = sum(
            self.seconds(length * len(rows), len(rows)) for length, rows in self.waiting.items()
        )
        self.is_tokenized = True

    def take(self, length: int, count: int) -> tuple[list[int], float]:
        """Take `count` rows of a length out; return them and the cost that went with them."""
        rows = self.waiting[length]
        taken, left = rows[:count], rows[count:]
        if left:
            self.waiting[length] = left
        else:
            del self.waiting[length]
        tokens = length * len(taken)
        cost_s = self.cost_s * tokens / self._tokens
        self._tokens -= tokens
        self.cost_s = self.cost_s - cost_s if self._tokens else 0.0
        return taken, cost_s

    @property
    def runs(self) -> int:
        """About how many runs may be begun, at least one."""
        return max(1, len(self.waiting), self._tokens // WORTHWHILE_TOKENS)

    @property
    def has_work(self) -> bool:
        """Whether something of it was not begun."""
        return bool(self.waiting) or not self.is_tokenized

    def discard_rows(self) -> None:
        """Let go of the rows that were not taken."""
        self.waiting.clear()
        self._tokens = 0

    @property
    def tokens(self) -> int:
        """Tokens that wait, padding included; 0 before it is tokenized."""
        return self._tokens


@dataclass(frozen=True, slots=True)
class Tokenize(Generic[Owner]):
    """Turn the texts of a request into rows."""

    entry: QueueEntry[Owner]


@dataclass(frozen=True, slots=True)
class Run(Generic[Owner]):
    """Compute rows of one or several requests, all of one model and padded to one length."""

    model: Hashable
    length: int
    parts: tuple[tuple[QueueEntry[Owner], tuple[int, ...]], ...]
    cost_s: float

    @property
    def rows(self) -> int:
        """How many rows."""
        return sum(len(rows) for _, rows in self.parts)
