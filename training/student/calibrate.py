"""Fits the map from logits to class probabilities by maximum likelihood.

Knows logits and human grades; does not know texts. The grades come from the training split where margin-MSE
shows the student no human label: its training logits are then nearly as they are on new queries, and the
held-out lists stay untouched for the figures. A student that learnt from those labels knows its training
lists too well; its recipe fits on the validation lists, and the test lists say how good the fit is.
Invariant: slope > 0 and ascending thresholds, whatever the grades are, even if a class is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from bundle.manifest import Calibration
from bundle.score import class_probabilities
from training.data.lists import LABELS, JudgedList, encode_lists, read_lists
from training.measure.metrics import expected_calibration_error
from training.stages import Context, Metrics, StageError
from training.student.student import load

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


def out_of_fold(
    logits: Floats, classes: NDArray[np.int64], owners: NDArray[np.int64], folds: int, seed: int
) -> Floats:
    """Class probabilities [n, classes] of every pair under a fit that saw no pair of its query.

    `owners` [n] is the query index of each pair.
    """
    queries = int(owners.max()) + 1
    fold_of = np.random.default_rng(seed).permutation(queries) % folds
    probabilities = np.empty((len(logits), len(LABELS)))
    for fold in np.unique(fold_of[owners]):
        held_out = fold_of[owners] == fold
        seen = ~held_out if not held_out.all() else held_out  # a single query has no other to learn from
        fitted = fit(logits[seen], classes[seen], len(LABELS))
        probabilities[held_out] = class_probabilities(logits[held_out], fitted)
    return probabilities


def run(context: Context) -> Metrics:
    """Write calibration.json and return the calibration errors before and after, on other queries."""
    recipe = context.recipe.calibrate
    lists = _chosen(read_lists(context.inputs("data") / "pairs.parquet", recipe.split), recipe.datasets)
    if not lists:
        raise StageError(f"calibrate: the {recipe.split} split holds no judged pair of the wanted data sets")
    student = load(context.inputs("distil"))
    logits = student.score(encode_lists(student.encoder, lists)).astype(np.float64)
    classes = np.concatenate([np.array(judged.grades) for judged in lists])
    owners = np.repeat(np.arange(len(lists)), [len(judged) for judged in lists])
    calibration = fit(logits, classes, len(LABELS))
    probabilities = out_of_fold(logits, classes, owners, recipe.folds, context.seed)
    exact = classes == len(LABELS) - 1
    (context.out / "calibration.json").write_text(calibration.model_dump_json() + "\n")
    figures: dict[str, float | int | str] = {
        "pairs": len(classes),
        "split": recipe.split,
        "datasets": ", ".join(dict.fromkeys(judged.dataset for judged in lists)),
        "exact error before": expected_calibration_error(1 / (1 + np.exp(-logits)), exact),
        "exact error after": expected_calibration_error(probabilities[:, -1], exact),
        "class error after": expected_calibration_error(
            probabilities.max(axis=1), probabilities.argmax(axis=1) == classes
        ),
    }
    (context.out / "calibrate.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return figures


def _chosen(lists: Sequence[JudgedList], datasets: Sequence[str]) -> list[JudgedList]:
    """The lists of the named data sets; without names those whose labels are the four served classes."""
    if datasets:
        return [judged for judged in lists if judged.dataset in datasets]
    labelled = [judged for judged in lists if None not in judged.labels]
    return labelled or list(lists)


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
