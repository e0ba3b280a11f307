"""Tests of service/cache/breaker.py."""

from hypothesis import given
from hypothesis import strategies as st

from service.cache.breaker import Breaker

LIMIT, PAUSE_S = 3, 2.0
steps = st.lists(st.tuples(st.sampled_from(["fail", "succeed", "lost"]), st.floats(0, 3)), max_size=60)


@given(steps)
def test_failures_cost_one_attempt_a_pause(outcomes: list[tuple[str, float]]) -> None:
    """Whatever comes of attempts, after three failures in a row at most one is made in each pause."""
    breaker, now_s, failures, last_s = Breaker(LIMIT, PAUSE_S), 0.0, 0, 0.0
    for outcome, seconds in outcomes:
        now_s += seconds
        if not breaker.allow(now_s):
            assert failures >= LIMIT
            assert now_s < last_s + PAUSE_S
            continue
        assert failures < LIMIT or now_s >= last_s + PAUSE_S
        last_s = now_s
        if outcome == "fail":
            failures += 1
            assert (failures == LIMIT) == breaker.fail(now_s)
        elif outcome == "succeed":
            assert (failures >= LIMIT) == breaker.succeed()
            failures = 0
        assert (failures >= LIMIT) == breaker.is_open


def test_a_late_failure_begins_the_pause() -> None:
    """The pause is counted from when the last failure was told, not from when its attempt was made."""
    breaker = Breaker(1, PAUSE_S)
    breaker.allow(0.0)
    breaker.fail(1.5)

    assert [False, True] == [breaker.allow(3.4), breaker.allow(3.5)]
