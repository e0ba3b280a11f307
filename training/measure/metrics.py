"""Ranking and calibration metrics with their uncertainty, in numpy only.

Knows neither models nor files: every function takes the arrays of one list, or one value per list.
Invariant: the order of the input never matters; tied scores get the expected value over their orders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[np.int64]], float]  # how often each list was drawn [lists] -> figure


def ndcg(scores: ArrayLike, gains: ArrayLike, k: int | None = None) -> float:
    """Normalised discounted cumulative gain of one list, over its first k ranks.

    NDCG@k = DCG@k(order by score) / DCG@k(order by gain), with linear gains:
    DCG@k = sum over ranks r = 1..min(k, n) of gain(r) / log2(r + 1).
    Shapes: scores [n], gains [n] >= 0; k None means the whole list. Tied scores contribute their
    expected DCG over all orders of the tie, as scikit-learn does. A list without any gain has no
    NDCG: nan. Reference: Jarvelin and Kekalainen, TOIS 20(4), 2002.

    The one relevant product is second, so the value is 1 / log2(3):

    >>> round(ndcg([0.9, 0.8, 0.1], [0.0, 1.0, 0.0]), 4)
    0.6309

    Both products are tied, so it is the mean of 1 and 1 / log2(3):

    >>> round(ndcg([0.5, 0.5], [0.0, 1.0]), 4)
    0.8155
    """
    score, gain = _pair(scores, gains)
    if (gain < 0).any():
        raise ValueError("gains must not be negative")
    ideal = _dcg(gain, gain, k)
    return _dcg(score, gain, k) / ideal if ideal > 0 else float("nan")


def random_ndcg(gains: ArrayLike, k: int | None = None) -> float:
    """Expected NDCG of a uniformly random order of one list: the floor of every NDCG figure.

    Exact, not sampled: E[DCG@k] = mean(gain) * sum over ranks r <= k of 1 / log2(r + 1), which is
    the NDCG of a list whose scores are all tied. Shapes: gains [n].

    One relevant product of two: first or second with equal chance.

    >>> round(random_ndcg([1.0, 0.0]), 4)
    0.8155
    """
    return ndcg(np.zeros(len(np.asarray(gains))), gains, k)


def auc(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties half.

    AUC = sum over positives p, negatives m of w_p w_m ([s_p > s_m] + [s_p = s_m] / 2) / (W_p W_m).
    Shapes: scores [n], positive bool [n], weights [n] >= 0 or None for ones. Needs both kinds,
    else nan. Reference: Hanley and McNeil, Radiology 143(1), 1982.

    Of the four (positive, negative) comparisons three are won:

    >>> auc([0.9, 0.3, 0.5, 0.1], [True, True, False, False])
    0.75
    """
    score = _finite(scores)
    is_positive = np.asarray(positive, dtype=bool)
    weight = np.ones(len(score)) if weights is None else np.asarray(weights, dtype=np.float64)
    _, group = np.unique(score, return_inverse=True)
    positives = np.bincount(group, weight * is_positive)
    negatives = np.bincount(group, weight * ~is_positive)
    total = positives.sum() * negatives.sum()
    if total == 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / total)


def spearman(scores: ArrayLike, gains: ArrayLike) -> float:
    """Spearman's rank correlation of one list, tied values sharing their mean rank.

    rho = Pearson correlation of the mid-ranks of both arguments. Shapes: scores [n], gains [n].
    A constant argument has no rank correlation: nan. Reference: Spearman, Am. J. Psych. 15, 1904.

    Ranks (1, 2, 3) against (1, 3, 2): 1 - 6 * 2 / (3 * 8) = 0.5.

    >>> round(spearman([1.0, 2.0, 3.0], [1.0, 5.0, 2.0]), 6)
    0.5
    """
    left, right = (_midranks(values) for values in _pair(scores, gains))
    left, right = left - left.mean(), right - right.mean()
    norm = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / norm if norm > 0 else float("nan")


def pair_accuracy(scores: ArrayLike, gains: ArrayLike) -> tuple[float, int]:
    """Pairs of one list that the scores order as the gains do, and the number of such pairs.

    correct = sum over pairs with g_i > g_j of [s_i > s_j] + [s_i = s_j] / 2.
    Shapes: scores [n], gains [n] -> (correct, pairs). Pool lists by adding both before dividing.

    Two of the three pairs with different gains are in order:

    >>> pair_accuracy([3.0, 1.0, 2.0], [1.0, 0.5, 0.0])
    (2.0, 3)
    """
    score, gain = _pair(scores, gains)
    better = gain[:, None] > gain[None, :]
    won = (np.sign(score[:, None] - score[None, :]) + 1) / 2
    return float(won[better].sum()), int(better.sum())


def reciprocal_rank(scores: ArrayLike, relevant: ArrayLike) -> float:
    """One over the rank of the first relevant product of one list; 0 if none is relevant, as trec_eval counts.

    Shapes: scores [n], relevant bool [n]. Tied scores give the expected value over all orders of the tie: of m tied
    products, r of them relevant, the first relevant one stands at place j with probability C(m - j, r - 1) / C(m, r).

    The relevant one is second; and where both are tied, it is first or second with equal chance:

    >>> reciprocal_rank([0.9, 0.8], [False, True]), reciprocal_rank([0.5, 0.5], [False, True])
    (0.5, 0.75)
    """
    score, is_relevant = _finite(scores), np.asarray(relevant, dtype=bool)
    if not is_relevant.any():
        return 0.0
    best = score[is_relevant].max()
    above, tied = int((score > best).sum()), score == best
    size, hits = int(tied.sum()), int((tied & is_relevant).sum())
    places = range(1, size - hits + 2)
    return sum(comb(size - j, hits - 1) / comb(size, hits) / (above + j) for j in places)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, weights: ArrayLike | None = None
) -> float:
    """Expected calibration error: how far stated confidence is from the observed frequency.

    ECE = sum over bins b of n_b / n * |mean(correct in b) - mean(confidence in b)|, over `bins`
    equal-width bins of [0, 1]. Shapes: confidence [n] in [0, 1], correct [n] bool or in [0, 1],
    weights [n] >= 0 or None for ones.
    Reference: Naeini, Cooper and Hauskrecht, AAAI 2015.

    Two at 0.9, of which one is right (off by 0.4), and two at 0.2, none right (off by 0.2):

    >>> round(expected_calibration_error([0.9, 0.9, 0.2, 0.2], [1, 0, 0, 0]), 6)
    0.3
    """
    stated, observed = _pair(confidence, correct)
    weight = np.ones(len(stated)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.sum() == 0:
        raise ValueError("no rows to measure calibration on")
    if stated.min() < 0 or stated.max() > 1:
        raise ValueError("confidence must lie in [0, 1]")
    group = np.minimum((stated * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(group, weight * (observed - stated))).sum() / weight.sum())


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its percentile bootstrap interval, and the number of lists under it."""

    value: float
    low: float
    high: float
    lists: int


def bootstrap(
    statistic: Statistic, lists: int, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap over lists of any figure that can be computed from draw counts.

    `statistic` takes int64 [lists], how often each list was drawn; all ones gives the figure
    itself. Lists, not pairs, are drawn: the pairs of one query are not independent.
    An interval that excludes its own figure is widened to it: a figure that is never negative, such as a calibration
    error, is larger in most draws than in the lists themselves.
    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    if lists < 1:
        raise ValueError("a bootstrap needs at least one list")
    draws = np.random.default_rng(seed)
    values = np.empty(resamples)
    for index in range(resamples):
        values[index] = statistic(np.bincount(draws.integers(0, lists, lists), minlength=lists))
    tail = (1 - confidence) / 2 * 100
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    value = statistic(np.ones(lists, np.int64))
    return Interval(value, min(float(low), value), max(float(high), value), lists)


def mean_interval(
    values: ArrayLike, sizes: ArrayLike | None = None, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap interval of a mean over lists, or of a pooled ratio sum(values) / sum(sizes).

    Shapes: values [lists] (per-list figures, or numerators when `sizes` gives the denominators).

    >>> mean_interval([0.5, 0.5, 0.5])
    Interval(value=0.5, low=0.5, high=0.5, lists=3)
    >>> mean_interval([1.0, 3.0], [2, 6], resamples=10).value
    0.5
    """
    numerators = _finite(values)
    denominators = np.ones(len(numerators)) if sizes is None else _finite(sizes)

    def ratio(counts: NDArray[np.int64]) -> float:
        total = float(counts @ denominators)
        return float(counts @ numerators) / total if total > 0 else float("nan")

    return bootstrap(ratio, len(numerators), resamples=resamples, seed=seed)


def paired_interval(
    left: ArrayLike, right: ArrayLike, sizes: ArrayLike | None = None, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap interval of the difference left - right of two models on the same lists.

    Both models are measured on the same draw each time, so the spread between lists cancels:
    an interval above zero says that left is better. Shapes as in `mean_interval`.

    >>> paired_interval([0.9, 0.2], [0.8, 0.1]).low > 0
    True
    """
    first, second = _pair(left, right)
    return mean_interval(first - second, sizes, resamples=resamples, seed=seed)


def _dcg(scores: Floats, gains: Floats, k: int | None) -> float:
    """Expected DCG@k: every tie spreads its mean gain over the ranks that it covers."""
    discounts = 1 / np.log2(np.arange(2, len(scores) + 2))
    if k is not None:
        discounts[k:] = 0
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    mean_gain = np.bincount(group, gains) / sizes
    return float(mean_gain @ np.add.reduceat(discounts, np.cumsum(sizes) - sizes)) if len(scores) else 0.0


def _midranks(values: Floats) -> Floats:
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group]


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"expected one row of finite numbers, got shape {array.shape}")
    return array


def _pair(left: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _finite(left), _finite(right)
    if len(first) != len(second):
        raise ValueError(f"lengths differ: {len(first)} and {len(second)}")
    return first, second
