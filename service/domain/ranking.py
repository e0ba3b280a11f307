"""PURE. Turns the logits of a request into an order of its products; what came of a request.

Knows calibration and labels; does not know time, threads or texts.
Invariant: every product has exactly one place and a score above 0; scored ones come first, by the score as it is
printed, then the others in the order of the request, with scores below any that is computed and still falling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from operator import attrgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle import Manifest
from bundle.score import class_probabilities, label_names, relevance
from bundle.text import ProductUse, TextUse

DECIMALS: Final = 6
LEAST: Final = 10.0**-DECIMALS
"""The smallest score that is computed: what scores less was not scored."""

_FALLING_DECIMALS: Final = 2 * DECIMALS  # enough for 10,000 distinct scores below the least


class Cause(IntEnum):
    """Why a product has no score, the gravest first; 0 stands for one that has."""

    SCORED = 0
    ENGINE = 1
    NONFINITE = 2
    DEADLINE = 3
    OVERLOAD = 4
    UNKNOWN_ID = 5


Causes = NDArray[np.int8]
Uses = Sequence[tuple[TextUse, Sequence[ProductUse]]]
"""How much was read of each query and of its products."""


@dataclass(slots=True)  # not frozen, which makes making one three times as slow
class RankedProduct:
    """One product of a ranking; one that was not scored has no label."""

    index: int
    score: float
    label: str | None


@dataclass(frozen=True, slots=True)
class Unscored:
    """How many products got no score, by cause, the gravest first."""

    engine: int = 0
    nonfinite: int = 0
    deadline: int = 0
    overload: int = 0
    unknown_id: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(_counts(self))

    @property
    def by_cause(self) -> Mapping[str, int]:
        """Count of each cause."""
        return dict(zip(_CAUSES, _counts(self), strict=True))

    @property
    def failed(self) -> int:
        """Those that an answer without failures would have scored: all but unknown ids."""
        return self.total - self.unknown_id

    @property
    def reason(self) -> str | None:
        """The gravest cause, which the answer names."""
        return next((cause for cause, count in self.by_cause.items() if count), None) if self.total else None


_CAUSES: Final = tuple(cause.name for cause in fields(Unscored))
_counts: Final = attrgetter(*_CAUSES)
ALL_SCORED: Final = Unscored()


@dataclass(frozen=True, slots=True)
class Ranking:
    """All products of a call, best first, and what the call cost.

    `logits` are in the order of the request, float32 [n], and not finite where a product has no score; `causes` say
    why it has none. `uses` say for each query and its products how much of their texts was read, if that was asked for.
    `admitted` counts the products that were let in, `rows` those that were tokenized, `cached` those whose logit was
    known; tokens are those of the rows. `lengths` and `cut` say of each row its tokens and whether text was cut off;
    rows are those of the first products. `cached_tokens` and `cached_cut` are of the pairs that were known.
    """

    products: Sequence[RankedProduct] = ()
    logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), compare=False)
    causes: Causes = field(default_factory=lambda: np.empty(0, np.int8), compare=False)
    unscored: Unscored = ALL_SCORED
    admitted: int = 0
    rows: int = 0
    tokens: int = 0
    padding_tokens: int = 0
    truncated: int = 0
    unknown_tokens: int | None = 0
    cached: int = 0
    cached_tokens: int = 0
    cached_cut: int = 0
    lengths: Sequence[int] = ()
    cut: bytes = b""
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    measure_s: float = 0.0
    uses: Uses = ()

    @property
    def used_tokens(self) -> int:
        """Tokens of all pairs that have a score, whenever they were read."""
        return self.tokens + self.cached_tokens


def rank_products(
    logits: NDArray[np.float32], causes: Causes, manifest: Manifest
) -> tuple[list[RankedProduct], Unscored]:
    """Return the places of products with logits [n], best first, ties in the order of the request.

    Products with a cause, and those whose logit is not finite, come last in the order of the request.
    Scores are rounded before they are compared, so that a tie in the answer is a tie in the order.
    """
    causes = np.where((causes == Cause.SCORED) & ~np.isfinite(logits), np.int8(Cause.NONFINITE), causes)
    scored = causes == Cause.SCORED
    counts = np.bincount(causes, minlength=len(Cause)).tolist()
    products = _best_first(logits, scored, manifest)
    rest = np.flatnonzero(~scored).tolist()
    falling = (LEAST * (len(rest) - number) / (len(rest) + 1) for number in range(len(rest)))
    products += [RankedProduct(index, score, None) for index, score in zip(rest, falling, strict=True)]
    return products, Unscored(*counts[1:])


def _best_first(
    logits: NDArray[np.float32], scored: NDArray[np.bool_], manifest: Manifest
) -> list[RankedProduct]:
    probabilities = class_probabilities(logits[scored], manifest.calibration)
    scores = relevance(probabilities, manifest.labels).round(DECIMALS).clip(min=LEAST)
    order = np.argsort(-scores, kind="stable")
    indices = np.flatnonzero(scored)[order].tolist()
    labels = label_names(probabilities[order], manifest.labels)
    return [*map(RankedProduct, indices, scores[order].tolist(), labels)]


def decimal(value: float) -> str:
    """Write a score or logit as JSON with a dot and without an exponent, so that those below the least differ."""
    return f"{value:.{_FALLING_DECIMALS if 0.0 < value < LEAST else DECIMALS}f}"
