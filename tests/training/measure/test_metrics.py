"""The metrics against hand-computed values and independent implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.measure import metrics

GRADES = st.lists(st.integers(0, 3), min_size=2, max_size=30)
SEEDS = st.integers(0, 2**32 - 1)
CUTOFFS = st.sampled_from([None, 1, 3, 10])


def coarse_scores(size: int, seed: int) -> np.ndarray:
    """Scores from a small set, so that ties are common."""
    return np.random.default_rng(seed).integers(0, 6, size) / 4 - 0.5


@settings(deadline=None)
@given(grades=GRADES, seed=SEEDS, k=CUTOFFS)
def test_ndcg_agrees_with_scikit_learn(grades: list[int], seed: int, k: int | None) -> None:
    """NDCG with float gains and ties is scikit-learn's, at every cut-off."""
    sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="independent NDCG is in the train extra")
    gains = np.array([0, 0.01, 0.1, 1.0])[grades]
    scores = coarse_scores(len(grades), seed)
    if gains.max() == 0:
        assert np.isnan(metrics.ndcg(scores, gains, k))
        return

    expected = sklearn_metrics.ndcg_score([gains], [scores], k=k)

    assert expected == pytest.approx(metrics.ndcg(scores, gains, k), abs=1e-12)


@settings(deadline=None)
@given(grades=GRADES.filter(any), seed=SEEDS)
def test_ndcg_agrees_with_trec_eval(grades: list[int], seed: int) -> None:
    """Without ties, NDCG with integer gains is trec_eval's, for the list and its first ten ranks."""
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="independent NDCG is in the dev extra")
    scores = np.random.default_rng(seed).permutation(len(grades)).astype(float)
    names = [f"d{row}" for row in range(len(grades))]
    evaluator = pytrec_eval.RelevanceEvaluator(
        {"q": dict(zip(names, grades, strict=True))}, {"ndcg", "ndcg_cut.10"}
    )

    expected = evaluator.evaluate({"q": dict(zip(names, scores, strict=True))})["q"]

    assert expected["ndcg"] == pytest.approx(metrics.ndcg(scores, grades), abs=1e-6)
    assert expected["ndcg_cut_10"] == pytest.approx(metrics.ndcg(scores, grades, 10), abs=1e-6)


@pytest.mark.parametrize("k", [None, 3])
def test_random_floor_is_the_mean_of_many_shuffles(k: int | None) -> None:
    """The analytic floor is what shuffling the list many times gives."""
    gains = np.array([1, 0.1, 0.1, 0.01, 0, 0, 1])
    draws = np.random.default_rng(7)
    shuffled = [metrics.ndcg(draws.permutation(len(gains)), gains, k) for _ in range(4000)]

    assert np.mean(shuffled) == pytest.approx(metrics.random_ndcg(gains, k), abs=0.01)


def test_ndcg_ignores_the_input_order() -> None:
    """Reordering a list with ties leaves its NDCG as it was, to rounding."""
    draws = np.random.default_rng(3)
    scores, gains = draws.integers(0, 3, 20).astype(float), draws.integers(0, 4, 20)
    order = draws.permutation(20)

    assert metrics.ndcg(scores, gains, 5) == pytest.approx(metrics.ndcg(scores[order], gains[order], 5))


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [np.inf, 1.0], [1.0, 2.0, 3.0]])
def test_bad_scores_are_refused(scores: list[float]) -> None:
    """A score that is not finite, or a missing one, raises instead of giving a figure."""
    with pytest.raises(ValueError, match=r"finite|lengths"):
        metrics.ndcg(scores, [0.0, 1.0])


def test_negative_gains_are_refused() -> None:
    """A negative gain has no place in linear NDCG."""
    with pytest.raises(ValueError, match="negative"):
        metrics.ndcg([1.0, 2.0], [-1.0, 1.0])


@settings(deadline=None)
@given(size=st.integers(2, 40), seed=SEEDS)
def test_auc_agrees_with_scikit_learn(size: int, seed: int) -> None:
    """Weighted AUC with ties is scikit-learn's."""
    sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="independent AUC is in the train extra")
    draws = np.random.default_rng(seed)
    scores, weights = coarse_scores(size, seed), draws.integers(1, 4, size)
    positive = draws.random(size) < 0.4
    positive[:2] = True, False

    expected = sklearn_metrics.roc_auc_score(positive, scores, sample_weight=weights)

    assert expected == pytest.approx(metrics.auc(scores, positive, weights))


def test_auc_needs_both_kinds() -> None:
    """Without a negative there is no AUC, and the figure says so."""
    assert np.isnan(metrics.auc([0.1, 0.2], [True, True]))


@settings(deadline=None)
@given(grades=GRADES, seed=SEEDS)
def test_spearman_agrees_with_scipy(grades: list[int], seed: int) -> None:
    """Spearman with ties is SciPy's; a constant side gives nan."""
    stats = pytest.importorskip("scipy.stats", reason="independent Spearman is in the train extra")
    scores = coarse_scores(len(grades), seed)
    if len(set(grades)) == 1 or len(set(scores)) == 1:
        assert np.isnan(metrics.spearman(scores, grades))
        return

    assert stats.spearmanr(scores, grades).statistic == pytest.approx(metrics.spearman(scores, grades))


@given(grades=GRADES, seed=SEEDS)
def test_pair_accuracy_counts_what_a_double_loop_counts(grades: list[int], seed: int) -> None:
    """The vectorised count equals the definition, pair by pair."""
    scores = coarse_scores(len(grades), seed)
    outcomes = [
        1.0 if better > worse else 0.5 if better == worse else 0.0
        for better, high in zip(scores, grades, strict=True)
        for worse, low in zip(scores, grades, strict=True)
        if high > low
    ]

    assert (sum(outcomes), len(outcomes)) == metrics.pair_accuracy(scores, grades)


def test_calibration_error_of_honest_confidence_is_near_zero() -> None:
    """Outcomes drawn with the stated probability are nearly calibrated, overstated ones are not."""
    draws = np.random.default_rng(0)
    stated = draws.random(20_000)
    correct = draws.random(20_000) < stated

    assert metrics.expected_calibration_error(stated, correct) < 0.02
    assert metrics.expected_calibration_error(np.sqrt(stated), correct) > 0.1


@pytest.mark.parametrize("confidence", [[1.2], []])
def test_calibration_error_refuses_what_is_no_probability(confidence: list[float]) -> None:
    """A confidence outside [0, 1], or no rows at all, raises."""
    with pytest.raises(ValueError, match=r"\[0, 1\]|no rows"):
        metrics.expected_calibration_error(confidence, [1.0] * len(confidence))


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """A 95 % interval over 40 lists holds the true mean in roughly 95 of 100 samples."""
    draws = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        interval = metrics.mean_interval(draws.normal(0.6, 0.2, 40), resamples=300, seed=trial)
        covered += interval.low <= 0.6 <= interval.high

    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_is_a_function_of_its_seed() -> None:
    """The same seed gives the same interval, another seed another one."""
    values = np.random.default_rng(2).random(30)

    assert metrics.mean_interval(values, seed=5) == metrics.mean_interval(values, seed=5)
    assert metrics.mean_interval(values, seed=5) != metrics.mean_interval(values, seed=6)


def test_pooled_ratio_weighs_lists_by_their_pairs() -> None:
    """A pooled figure is the ratio of sums, not the mean of ratios."""
    assert metrics.mean_interval([9.0, 0.0], [10, 1]).value == pytest.approx(9 / 11)


def test_paired_interval_sees_what_separate_intervals_hide() -> None:
    """A small but constant gain is certain when paired, though both intervals overlap."""
    base = np.random.default_rng(4).random(50) * 0.8
    left, right = metrics.mean_interval(base + 0.02), metrics.mean_interval(base)

    assert left.low < right.high
    assert metrics.paired_interval(base + 0.02, base).low == pytest.approx(0.02)


def test_no_interval_excludes_its_own_figure() -> None:
    """A figure that is least on the lists themselves, as an error can be, is the end of its interval."""
    interval = metrics.bootstrap(lambda counts: float(counts.std()), 20, resamples=50)

    assert interval.value == interval.low == 0
    assert interval.high > 0.5


def test_bootstrap_needs_a_list() -> None:
    """No lists, no interval."""
    with pytest.raises(ValueError, match="at least one list"):
        metrics.mean_interval([])
