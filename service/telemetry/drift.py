"""PURE. How far the scores that are served lie from those that the model gave when its bundle was made.

Knows logits, the manifest's calibration and its reference; does not know time, threads, texts or metrics.
Invariant: a reading covers the last one to two windows of documents, in fixed memory.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle import Manifest
from bundle.score import class_probabilities, relevance

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

WINDOW: Final = 25_000  # documents, some 500 lists of 50
LEAST: Final = 5_000
"""Documents below which nothing is compared. By chance a PSI is (bins - 1) (1 / n + 1 / m) when documents are
independent (Yurdakul, "Statistical Properties of Population Stability Index", 2018): here 0.003. Those of one list
are alike, which makes it some ten times that."""

BINS: Final = 10  # of the scores of a bundle without a reference
_NOTHING: Final = float("nan")


def stability_index(expected: ArrayLike, found: ArrayLike) -> float:
    """Population stability index of two histograms, counts [bins] each, over the same bins.

        PSI = sum_i (q_i - p_i) ln(q_i / p_i)

    It is the symmetric divergence of Kullback and Leibler ("On Information and Sufficiency", 1951) under the name
    that credit scoring gave it, with its rule of thumb: below 0.1 stable, above 0.25 another population (Siddiqi,
    "Credit Risk Scorecards", 2006). Half a count is added to each bin, so that an empty one is no infinity.

    Shares of 1/4 and 3/4 against 3/4 and 1/4: twice (1/2) ln 3 = 1.0986.

    >>> round(stability_index([0, 1], [1, 0]), 4)
    1.0986
    >>> stability_index([5, 5], [50, 50])
    0.0
    """
    before, now = _smoothed(expected), _smoothed(found)
    return float(((now - before) * np.log(now / before)).sum())


def mix_distance(expected: ArrayLike, found: ArrayLike) -> float:
    """Total variation distance of two class mixes, counts [classes] each: the share that changed its class.

        TV = 1/2 sum_k |q_k - p_k|, in [0, 1]

    >>> mix_distance([1, 1, 2], [2, 1, 1])
    0.25
    """
    before, now = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    return float(np.abs(now / now.sum() - before / before.sum()).sum() / 2)


@dataclass(frozen=True, slots=True)
class Reading:
    """Statistics of the last documents; NaN where there are none, or not enough yet.

    `scores` counts the documents in equal bins over [0, 1], `classes` by label, in the order of the labels.
    `truncated` and `unknown` are shares, of documents and of tokens.
    """

    documents: int
    psi: float
    class_distance: float
    scores: tuple[int, ...]
    classes: tuple[int, ...]
    truncated: float
    unknown: float


class Drift:
    """What one bundle was asked lately, beside the reference that its manifest may have.

    Who reads from another thread may see a request half counted, and nothing worse.
    """

    def __init__(self, manifest: Manifest, window: int = WINDOW) -> None:
        reference = manifest.reference
        self._bins = BINS if reference is None else len(reference.scores)
        self._calibration, self._labels = manifest.calibration, manifest.labels
        self._reference = reference
        self._window = window
        self._windows = self._empty(), self._empty()

    def add(
        self,
        logits: NDArray[np.float32],
        *,
        rows: int = 0,
        truncated: int = 0,
        tokens: int = 0,
        unknown: int | None = None,
    ) -> None:
        """Count a request: its logits [n], of which those that are not finite are no scores.

        Of its `rows`, those that were tokenized, `truncated` lost text; of their `tokens`, `unknown` have no piece.
        """
        recent, _ = self._windows
        probabilities = class_probabilities(logits[np.isfinite(logits)], self._calibration)
        scores = relevance(probabilities, self._labels)
        upper = np.arange(1, self._bins) / self._bins  # an edge belongs to the bin above it
        recent.documents += len(scores)
        recent.scores += np.bincount(upper.searchsorted(scores, side="right"), minlength=self._bins)
        recent.classes += np.bincount(probabilities.argmax(axis=1), minlength=len(self._labels))
        recent.rows += rows
        recent.truncated += truncated
        if unknown is not None:
            recent.tokens += tokens
            recent.unknown += unknown
        if recent.documents >= self._window:
            self._windows = self._empty(), recent

    def read(self) -> Reading:
        """Return the statistics of the last documents."""
        (new, old), reference = self._windows, self._reference
        documents = new.documents + old.documents
        scores, classes = new.scores + old.scores, new.classes + old.classes
        is_told = reference is not None and documents >= min(LEAST, self._window)
        return Reading(
            documents=documents,
            psi=stability_index(reference.scores, scores) if reference and is_told else _NOTHING,
            class_distance=mix_distance(reference.classes, classes) if reference and is_told else _NOTHING,
            scores=tuple(scores.tolist()),
            classes=tuple(classes.tolist()),
            truncated=_share(new.truncated + old.truncated, new.rows + old.rows),
            unknown=_share(new.unknown + old.unknown, new.tokens + old.tokens),
        )

    def reference(self) -> Reading | None:
        """Return the statistics of the sample in the manifest."""
        reference = self._reference
        if reference is None:
            return None
        return Reading(
            documents=reference.pairs,
            psi=0.0,
            class_distance=0.0,
            scores=reference.scores,
            classes=reference.classes,
            truncated=reference.truncated,
            unknown=_NOTHING if reference.unknown is None else reference.unknown,
        )

    def _empty(self) -> "_Window":
        return _Window(np.zeros(self._bins, np.int64), np.zeros(len(self._labels), np.int64))


@dataclass(slots=True)
class _Window:
    scores: Counts
    classes: Counts
    documents: int = 0
    rows: int = 0
    truncated: int = 0
    tokens: int = 0
    unknown: int = 0


def _smoothed(counts: ArrayLike) -> Floats:
    values = np.asarray(counts, np.float64) + 0.5
    shares: Floats = values / values.sum()
    return shares


def _share(part: int, whole: int) -> float:
    return part / whole if whole else _NOTHING
