"""Tests of service/telemetry/tally.py."""

from service.telemetry.tally import STAGES, Sum, Tally


def test_answers_are_added_up() -> None:
    """Whole and failing answers count apart, documents and stages together."""
    tally = Tally()
    times_s = {**dict.fromkeys(STAGES, 0.25), "total": 1.5}
    tally.add(times_s, documents=3, cached=2, failed=False, now_s=5.0)
    tally.add(times_s, documents=1, cached=0, failed=True, now_s=7.0)

    assert (4, 7.0) == (tally.documents, tally.last_s)
    assert (Sum(1, 1.5), Sum(1, 1.5), Sum(2, 0.0)) == (tally.whole, tally.failing, tally.cached)
    assert [Sum(2, 0.5)] * len(STAGES) == list(tally.stages.values())


def test_a_stage_that_did_not_happen_took_no_time() -> None:
    """Every answer counts in every stage, so that a mean is one over answers."""
    tally = Tally()
    tally.add({"total": 1.0}, documents=0, cached=0, failed=False, now_s=1.0)

    assert [Sum(1, 0.0)] * len(STAGES) == list(tally.stages.values())
