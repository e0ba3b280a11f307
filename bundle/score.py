"""Turns logits into class probabilities and one relevance score.

Knows calibration and labels; does not know tokens, graphs or requests.
Invariant: scores lie in [0, 1] and never fall when the logit rises.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.manifest import Calibration, Label


def class_probabilities(logits: ArrayLike, calibration: Calibration) -> NDArray[np.float64]:
    """Return the probability of each class, float64 [n, classes], of logits [n].

    Proportional odds (McCullagh, "Regression Models for Ordinal Data", 1980), with slope s, ascending
    thresholds t_1 .. t_m and a_k = s x - t_k:

        P(class >= k) = sigmoid(a_k)
        P(class  = k) = sigmoid(a_k) sigmoid(-a_(k+1)) (1 - exp(-(t_(k+1) - t_k)))

    The second line is the difference of two sigmoids, written so that nothing cancels or overflows.
    ValueError if a logit is not finite.

    With s = 1 and thresholds 0 and ln 3, a logit of 0 has P(>= 1) = 1/2 and P(>= 2) = 1/4:

    >>> calibration = Calibration(method="ordinal", slope=1.0, thresholds=(0.0, 1.0986122886681098))
    >>> class_probabilities([0.0], calibration).round(6).tolist()
    [[0.5, 0.25, 0.25]]
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected logits of shape [n], got {values.ndim} dimensions")
    if not np.isfinite(values).all():
        raise ValueError("a logit is not finite")
    thresholds = np.asarray(calibration.thresholds)
    with np.errstate(over="ignore"):  # a huge logit saturates, as it should
        margins = calibration.slope * values[:, None] - thresholds
    above, below = _sigmoids(margins)
    gaps = -np.expm1(-np.diff(thresholds))
    return np.hstack([below[:, :1], above[:, :-1] * below[:, 1:] * gaps, above[:, -1:]])


def relevance(probabilities: NDArray[np.float64], labels: Sequence[Label]) -> NDArray[np.float64]:
    """Return the expected gain of each row, float64 [n] in [0, 1], of probabilities [n, classes].

    >>> labels = [Label(name="irrelevant", gain=0.0), Label(name="exact", gain=1.0)]
    >>> relevance(np.array([[0.75, 0.25]]), labels).tolist()
    [0.25]
    """
    score = np.zeros(len(probabilities))
    for label, probability in zip(labels, probabilities.T, strict=True):
        score += label.gain * probability  # by element: a matrix product rounds differently by batch size
    return score.clip(0.0, 1.0)


def label_names(probabilities: NDArray[np.float64], labels: Sequence[Label]) -> list[str]:
    """Return the name of each row's most probable class; of equals, the less relevant one."""
    return [labels[index].name for index in probabilities.argmax(axis=1).tolist()]


def _sigmoids(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sigmoids of values and of the same with the other sign."""
    decay = np.exp(-np.abs(values))
    larger = 1.0 / (1.0 + decay)
    smaller = decay / (1.0 + decay)
    is_positive = values >= 0
    return np.where(is_positive, larger, smaller), np.where(is_positive, smaller, larger)
