"""Fits what the student's logits mean as class probabilities, and says how well it holds on other queries.

Knows logits and human grades; does not know texts. The grades come from the training split where margin-MSE
shows the student no human label: its training logits are then nearly as they are on new queries, and the
held-out lists stay untouched for the figures. A student that learnt from those labels knows its training
lists too well: it is fitted on the validation lists, and the test lists say how good the fit is.
Invariant: the errors are those of fits that saw no pair of the query.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.score import class_probabilities
from training.data.lists import LABELS, JudgedList, encode_lists, read_lists
from training.errors import StageError
from training.measure.calibration import fit
from training.measure.metrics import expected_calibration_error
from training.stages import Context, Metrics
from training.student.student import load

Floats = NDArray[np.float64]


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
    is_taught = context.recipe.distil.learn_from == "teacher"
    split = recipe.split or ("train" if is_taught else "validation")
    lists = _chosen(read_lists(context.inputs("data") / "pairs.parquet", split), recipe.datasets)
    if not lists:
        raise StageError(f"calibrate: the {split} split holds no judged pair of the wanted data sets")
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
        "split": split,
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
