"""Tests of service/telemetry/model_stats.py."""

from service.telemetry.model_stats import STAGES, DurationSum, ModelStats


def test_answers_are_added_up() -> None:
    """Whole and failing answers count apart, documents and stages together."""
    stats = ModelStats()
    times_s = {**dict.fromkeys(STAGES, 0.25), "total": 1.5}
    stats.add(times_s, documents=3, cached=2, failed=False, now_s=5.0)
    stats.add(times_s, documents=1, cached=0, failed=True, now_s=7.0)

    assert (4, 7.0) == (stats.documents, stats.last_s)
    assert (DurationSum(1, 1.5), DurationSum(1, 1.5), DurationSum(2, 0.0)) == (
        stats.whole,
        stats.failing,
        stats.cached,
    )
    assert [DurationSum(2, 0.5)] * len(STAGES) == list(stats.stages.values())


def test_a_stage_that_did_not_happen_took_no_time() -> None:
    """Every answer counts in every stage, so that a mean is one over answers."""
    stats = ModelStats()
    stats.add({"total": 1.0}, documents=0, cached=0, failed=False, now_s=1.0)

    assert [DurationSum(1, 0.0)] * len(STAGES) == list(stats.stages.values())
