"""Fits the map from logits to ordered classes by maximum likelihood.

Knows logits and grades; does not know whose they are.
Invariant: slope > 0 and ascending thresholds, whatever the grades are, even if a class is missing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from bundle.manifest import Calibration
from bundle.score import class_probabilities

Floats = NDArray[np.float64]

_MIN_GAP = 1e-6  # of neighbouring thresholds, in units of logit standard deviations
_LOG_BOUND = 12.0  # of the slope and the gaps: e^12 is beyond any data


def fit(logits: ArrayLike, classes: ArrayLike, count: int) -> Calibration:
    """Maximum likelihood fit of the proportional odds model P(class >= k) = sigmoid(s x - t_k).

    Shapes: logits [n], classes int [n] in 0..count-1. One pseudo-pair per class, spread evenly over the
    logits, keeps the fit finite when a class is missing or the classes are perfectly separated.
    Reference: McCullagh, "Regression Models for Ordinal Data", JRSS B 42(2), 1980.

    Symmetric data put the threshold of two classes at 0:

    >>> abs(fit([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1], 2).thresholds[0]) < 1e-3
    True
    """
    x, y = np.asarray(logits, np.float64), np.asarray(classes)
    if len(x) == 0 or not np.isfinite(x).all():
        raise ValueError("calibration needs at least one pair, and finite logits")
    spread = float(x.std()) or 1.0
    smoothed = (np.eye(count)[y] * len(x) + 1) / (len(x) + count)

    def loss(parameters: Floats) -> float:
        probabilities = class_probabilities(x / spread, _calibration(parameters))
        return -float((smoothed * np.log(np.maximum(probabilities, 1e-300))).sum() / len(x))

    start = np.concatenate([[0.0], _start_thresholds(x / spread, smoothed)])
    bounds = [(-_LOG_BOUND, _LOG_BOUND), (None, None), *[(-_LOG_BOUND, _LOG_BOUND)] * (count - 2)]
    best = _calibration(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)
    return Calibration(method="ordinal", slope=best.slope / spread, thresholds=best.thresholds)


def _calibration(parameters: Floats) -> Calibration:
    """Parameters [classes]: log slope, first threshold, logs of the gaps to the next ones."""
    gaps = np.exp(parameters[2:]) + _MIN_GAP
    thresholds = parameters[1] + np.concatenate([[0.0], np.cumsum(gaps)])
    return Calibration(
        method="ordinal", slope=float(np.exp(parameters[0])), thresholds=tuple(map(float, thresholds))
    )


def _start_thresholds(x: Floats, smoothed: Floats) -> Floats:
    """First threshold and log gaps at which the mean logit has the observed class shares."""
    below = np.cumsum(smoothed.mean(axis=0))[:-1]
    thresholds = x.mean() + np.log(below / (1 - below))
    gaps = np.log(np.maximum(np.diff(thresholds), 1e-3))
    return np.concatenate([thresholds[:1], gaps])
