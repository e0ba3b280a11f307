"""Read a study's students back and put them side by side, list by list.

Knows the files of a study and metrics; does not know how they are shown.
Invariant: every variant is measured on the same lists with the same seeds, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.lists import JudgedList, read_scores
from training.errors import StageError
from training.folders import read_json
from training.measure.figures import Scores, ratios
from training.research.study import RESULT, SCORES, load_study


@dataclass(frozen=True, slots=True)
class Trained:
    """The students of one variant: each seed's scores of all lists, and the pairs each learnt from."""

    name: str
    scores: tuple[Scores, ...]
    pairs: float


def read_variants(path: Path, lists: Sequence[JudgedList]) -> list[Trained]:
    """Return the trained variants of a study in its order; StageError if one has not been trained."""
    study = load_study(path)
    found = []
    for variant in study.variants:
        folders = [Path(study.dir) / variant.name / f"seed-{seed}" for seed in study.seeds]
        missing = [str(folder) for folder in folders if not (folder / RESULT).is_file()]
        if missing:
            raise StageError(f"{missing[0]} is not there: run `python -m training study --recipe {path}`")
        scores = tuple(read_scores(folder / SCORES, lists) for folder in folders)
        results = [read_json(folder / RESULT) for folder in folders]
        pairs = float(np.mean([result["metrics"]["pairs"] for result in results]))
        found.append(Trained(variant.name, scores, pairs))
    return found


def seed_means(lists: Sequence[JudgedList], trained: Trained, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the metric's numerators [lists], averaged over the seeds, and its denominators [lists]."""
    each = [ratios(lists, scores)[metric] for scores in trained.scores]
    return np.mean([numerators for numerators, _ in each], axis=0), np.array(each[0][1])


def of_dataset(
    dataset: str, lists: Sequence[JudgedList], *trained: Trained
) -> tuple[list[JudgedList], *tuple[Trained, ...]]:
    """Return the lists of one data set, and each variant with the scores of those lists alone."""
    places = [place for place, judged in enumerate(lists) if judged.dataset == dataset]
    cut = (
        Trained(one.name, tuple([s[place] for place in places] for s in one.scores), one.pairs)
        for one in trained
    )
    return [lists[place] for place in places], *cut
