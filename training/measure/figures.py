"""Turns the scores of judged lists into figures with intervals, paired differences and tables.

Knows metrics and gain maps; does not know which model gave a score.
Invariant: every figure rests on the same lists for every model, and its row names the data set and metric.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Calibration, Label, QualityRow
from bundle.score import class_probabilities
from training.data.lists import JudgedList
from training.measure import metrics
from training.measure.metrics import Interval

Scores = Sequence[NDArray[np.floating]]  # one array per list
Ratios = dict[str, tuple[list[float], list[float]]]  # metric -> numerators and denominators per list

GAIN_MAP = "ESCI: E 1, S 0.1, C 0.01, I 0; graded: grade / 3"
SWAPPED = "(gains E 1, S 0.01, C 0.1, I 0)"
PAIRED_METRICS = ("ndcg@10", "ndcg", "pair accuracy")


def figures(lists: Sequence[JudgedList], scores: Scores, resamples: int) -> dict[str, Interval]:
    """Every ranking figure of one model, under the gain map `GAIN_MAP` unless its name says otherwise.

    "ndcg@10 above random" is (NDCG - floor) / (1 - floor), both summed over the lists.
    "pair accuracy" pools the pairs of all lists; "auc exact" pools the products of all lists.
    """
    found = {
        name: metrics.mean_interval(numerators, denominators, resamples=resamples)
        for name, (numerators, denominators) in ratios(lists, scores).items()
    }
    best = np.concatenate([np.array(judged.grades) == 3 for judged in lists])
    found["auc exact"] = _pooled_auc(lists, np.concatenate(list(scores)), best, resamples)
    return {name: interval for name, interval in found.items() if np.isfinite(interval.value)}


def differences(
    lists: Sequence[JudgedList], left: Scores, right: Scores, resamples: int
) -> dict[str, Interval]:
    """Paired bootstrap of left - right for the main figures."""
    first, second = ratios(lists, left), ratios(lists, right)
    return {
        name: metrics.paired_interval(first[name][0], second[name][0], first[name][1], resamples=resamples)
        for name in PAIRED_METRICS
    }


def served_figures(
    lists: Sequence[JudgedList],
    logits: Scores,
    calibration: Calibration,
    labels: Sequence[Label],
    resamples: int,
) -> dict[str, Interval]:
    """Quality of the served class probabilities: calibration error, and AUC of each class against the rest.

    The calibration error is of the most probable class: its probability against how often it is right.
    """
    probabilities = class_probabilities(np.concatenate(list(logits)), calibration)
    truth = np.concatenate([np.array(judged.grades) for judged in lists])
    owner = _owner(lists)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth

    def error(counts: NDArray[np.int64]) -> float:
        return metrics.expected_calibration_error(confidence, correct, weights=counts[owner])

    found = {"calibration error": metrics.bootstrap(error, len(lists), resamples=resamples)}
    for index, label in enumerate(labels):
        column = probabilities[:, index]
        found[f"auc of P({label.name})"] = _pooled_auc(lists, column, truth == index, resamples)
    return {name: interval for name, interval in found.items() if np.isfinite(interval.value)}


def quality_rows(dataset: str, model: str, found: Mapping[str, Interval]) -> list[QualityRow]:
    """The manifest's rows of one model on one data set."""
    return [
        QualityRow(
            dataset=dataset, metric=name, model=model, value=i.value, low=i.low, high=i.high, lists=i.lists
        )
        for name, i in found.items()
    ]


def tables(rows: Iterable[QualityRow]) -> str:
    """Markdown: one table per data set, a line per model, a column per metric, with 95 % intervals."""
    parts = [f"Gain map: {GAIN_MAP}.\nIn brackets: 95 % percentile bootstrap over lists."]
    by_dataset: dict[str, list[QualityRow]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    for dataset, members in by_dataset.items():
        names = list(dict.fromkeys(row.metric for row in members))
        cells = {(row.model, row.metric): _cell(row) for row in members}
        lines = [f"| model | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        lines += [
            f"| {model} | " + " | ".join(cells.get((model, name), "") for name in names) + " |"
            for model in dict.fromkeys(row.model for row in members)
        ]
        parts.append(f"### {dataset} ({max(row.lists for row in members)} lists)\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def ratios(lists: Sequence[JudgedList], scores: Scores) -> Ratios:
    """Every list metric as numerators and denominators, one per list."""
    found: Ratios = {}
    for judged, score in zip(lists, scores, strict=True):
        for name, (numerator, denominator) in _list_ratios(judged, np.asarray(score)).items():
            numerators, denominators = found.setdefault(name, ([], []))
            numerators.append(numerator)
            denominators.append(denominator)
    return found


def _list_ratios(judged: JudgedList, score: NDArray[np.floating]) -> dict[str, tuple[float, float]]:
    floor = metrics.random_ndcg(judged.gains, 10)
    at_ten = metrics.ndcg(score, judged.gains, 10)
    found: dict[str, tuple[float, float]] = {
        "ndcg@10": (at_ten, 1.0),
        "ndcg": (metrics.ndcg(score, judged.gains), 1.0),
        "ndcg@10 above random": (at_ten - floor, 1 - floor),
        "pair accuracy": metrics.pair_accuracy(score, judged.gains),
        # A model that ties a whole list says nothing about its order: no correlation.
        "spearman": (float(np.nan_to_num(metrics.spearman(score, judged.gains))), 1.0),
    }
    swapped = judged.swapped_gains()
    if swapped is not None:
        found[f"ndcg@10 {SWAPPED}"] = (metrics.ndcg(score, swapped, 10), 1.0)
        found[f"ndcg {SWAPPED}"] = (metrics.ndcg(score, swapped), 1.0)
    return found


def _pooled_auc(
    lists: Sequence[JudgedList], scores: NDArray[np.floating], positive: NDArray[np.bool_], resamples: int
) -> Interval:
    owner = _owner(lists)

    def statistic(counts: NDArray[np.int64]) -> float:
        return metrics.auc(scores, positive, counts[owner])

    if positive.all() or not positive.any():
        return Interval(float("nan"), float("nan"), float("nan"), len(lists))
    return metrics.bootstrap(statistic, len(lists), resamples=resamples)


def _owner(lists: Sequence[JudgedList]) -> NDArray[np.int64]:
    """The list index of every pair."""
    return np.repeat(np.arange(len(lists)), [len(judged) for judged in lists])


def _cell(row: QualityRow) -> str:
    return f"{row.value:.4f} [{row.low:.4f}, {row.high:.4f}]"
