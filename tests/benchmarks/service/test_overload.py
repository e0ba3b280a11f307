"""Tests of benchmarks/service/overload.py: how samples become figures, and figures verdicts."""

from benchmarks.service.overload import Phase, broken_promises, recovery_s, summarise
from benchmarks.shared.load import Sample

BUDGET_MS = 300.0


def _sample(ms: float, *, status: int = 200, share: float = 1.0, due_s: float = 10.0) -> Sample:
    return Sample(due_s, due_s, due_s + ms / 1_000, status, share)


def _phase(load: float, goodput: float, *, p99_ms: float = 290.0, failed: int = 0) -> Phase:
    return Phase(
        load=load,
        offered=10.0,
        requests=10,
        accepted=10,
        full=10,
        refused=0,
        failed=failed,
        coverage=1.0,
        goodput=goodput,
        accepted_p50_ms=100.0,
        accepted_p99_ms=p99_ms,
        refused_p99_ms=None,
        lateness_p99_ms=1.0,
    )


def test_answers_are_told_apart() -> None:
    """Scored in time, scored late, refused by an error or by an answer without scores, and failed."""
    samples = [
        _sample(100.0),
        _sample(200.0, share=0.4),
        _sample(400.0),
        _sample(5.0, share=0.0),
        _sample(4.0, status=429, share=0.0),
        _sample(301.0, status=504, share=0.0),
        _sample(1.0, status=500, share=0.0),
    ]
    phase = summarise(samples, load=2.0, seconds=2.0, products=50, budget_ms=BUDGET_MS)

    assert (3, 2, 3, 1) == (phase.accepted, phase.full, phase.refused, phase.failed)
    assert (1.0 + 0.4) * 50 / 2.0 == phase.goodput
    assert (200.0, 400.0) == (round(phase.accepted_p50_ms or 0), round(phase.accepted_p99_ms or 0))


def test_recovery_lasts_until_the_last_bad_answer() -> None:
    """Late, partial and refused answers after the fall of the load count; none means that it was at once."""
    bad = _sample(10.0, share=0.9, due_s=11.5)

    assert 1.5 == recovery_s(
        [_sample(10.0), bad, _sample(10.0, due_s=12.0)], from_s=10.0, budget_ms=BUDGET_MS
    )
    assert 0.0 == recovery_s([_sample(10.0)], from_s=10.0, budget_ms=BUDGET_MS)


def test_each_promise_can_break() -> None:
    """Falling goodput, late answers, failures and a slow recovery are each named."""
    good = [_phase(0.5, 400.0), _phase(1.0, 900.0), _phase(10.0, 850.0)]

    assert [] == broken_promises(good, 0.5, BUDGET_MS)
    assert ["at 10 times the capacity goodput is 50% of its peak"] == broken_promises(
        [*good[:2], _phase(10.0, 450.0)], 0.5, BUDGET_MS
    )
    assert 1 == len(broken_promises([*good, _phase(1.0, 900.0, p99_ms=306.0)], 0.5, BUDGET_MS))
    assert 1 == len(broken_promises([*good, _phase(1.0, 900.0, failed=1)], 0.5, BUDGET_MS))
    assert 1 == len(broken_promises(good, 2.1, BUDGET_MS))
