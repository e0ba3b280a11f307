"""What a shop brings, ready to be learnt: token states of its graded products, and of others from the same shop.

Knows lists, texts and the base model; does not know what is held out or how lessons are learnt.
Invariant: a list's figures and its lessons come from the same states, computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bundle.text import Product
from training.data.lists import JudgedList
from training.measure.metrics import ndcg
from training.student.student import Student
from training.tune.learn import Lesson
from training.tune.top import Top, states_below

OTHERS = (
    4  # products of other queries beside the graded ones of each list: they stay as the base model has them
)
MOST = 24  # graded products of one lesson; a longer list makes several

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Material:
    """One query of the shop: its gains [n], and the states [n + OTHERS] and base logits of graded and other products."""

    judged: JudgedList
    states: Sequence[Tensor]
    logits: Floats

    @property
    def graded(self) -> Sequence[Tensor]:
        """The states of the graded products."""
        return self.states[: len(self.judged)]

    def ndcg(self, logits: Floats) -> float:
        """Return NDCG@10 of the graded products under these logits."""
        return ndcg(logits, self.judged.gains, 10)

    def lessons(self, draws: np.random.Generator) -> Iterator[Lesson]:
        """Deal the graded products at random into lessons of at most `MOST`, each with the others."""
        count = len(self.judged)
        others = list(range(count, len(self.states)))
        gains = np.append(self.judged.gains, np.full(len(others), np.nan)).astype(np.float32)
        for part in np.array_split(draws.permutation(count), -(-count // MOST)):
            places = [*part.tolist(), *others]
            yield Lesson([self.states[place] for place in places], gains[places], self.logits[places])


def deal(material: Sequence[Material], seed: int) -> list[Lesson]:
    """Deal the lists of all queries into lessons."""
    draws = np.random.default_rng(seed)
    return [lesson for each in material for lesson in each.lessons(draws)]


def prepare(
    student: Student, top: Top, lists: Sequence[JudgedList], shop: Sequence[Product], seed: int
) -> list[Material]:
    """Read every list through the layers below the top, each with `OTHERS` products drawn from the shop."""
    draws = np.random.default_rng(seed)
    found = []
    for judged in lists:
        others = [shop[place] for place in draws.integers(0, len(shop), OTHERS)]
        rows = student.encoder.encode(judged.query, [*judged.products, *others])
        states = states_below(student, rows, len(top.layers))
        found.append(Material(judged, states, top.score(states)))
    return found
