"""PURE. Turns the logits of a request into an order of its products.

Knows calibration and labels; does not know time, threads or texts.
Invariant: every product has exactly one place, scored ones first, by the score as it is printed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle import Manifest
from bundle.score import class_probabilities, label_names, relevance

DECIMALS: Final = 6


@dataclass(frozen=True, slots=True)
class Place:
    """One product of a ranking; one that could not be scored has score 0 and no label."""

    index: int
    score: float
    label: str | None


@dataclass(frozen=True, slots=True)
class Unscored:
    """How many products got no score, by cause."""

    nonfinite: int
    engine: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.nonfinite + self.engine

    @property
    def reason(self) -> str | None:
        """The cause that the answer names; a failing engine outweighs a logit that is not finite."""
        return ("engine" if self.engine else "nonfinite") if self.total else None


ALL_SCORED: Final = Unscored(nonfinite=0, engine=0)


def rank_places(
    logits: NDArray[np.float32], failed: Collection[int], manifest: Manifest
) -> tuple[tuple[Place, ...], Unscored]:
    """Return the places of products with logits [n], best first, ties in the order of the request.

    Products in `failed`, and those whose logit is not finite, come last in the order of the request.
    Scores are rounded before they are compared, so that a tie in the answer is a tie in the order.
    """
    scored = np.isfinite(logits)
    scored[list(failed)] = False
    probabilities = class_probabilities(logits[scored], manifest.calibration)
    scores = relevance(probabilities, manifest.labels).round(DECIMALS).tolist()
    names = label_names(probabilities, manifest.labels)
    indices = np.flatnonzero(scored).tolist()
    best_first = sorted(map(Place, indices, scores, names), key=lambda place: (-place.score, place.index))
    last = [Place(index, 0.0, None) for index in np.flatnonzero(~scored).tolist()]
    return (*best_first, *last), Unscored(nonfinite=len(last) - len(failed), engine=len(failed))
