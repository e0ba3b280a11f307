"""Queueing theory against a simulated queue."""

import random

import pytest

from benchmarks.service.queueing import equal_times_quantile, highest_load, least_late_share, simulate
from benchmarks.shared.percentile import percentile


@pytest.mark.parametrize("load", [0.1, 0.3, 0.7])
def test_theory_is_what_a_simulated_queue_does(load: float) -> None:
    """The quantile for equal times is that of a million simulated requests."""
    found = percentile(simulate([1.0], load, requests=1_000_000), 0.99)

    assert found == pytest.approx(equal_times_quantile(load, 0.99), rel=0.03)


def test_putting_late_requests_aside() -> None:
    """A queue that drops whoever would wait too long, simulated, drops the share that theory says."""
    rng = random.Random(1)  # noqa: S311 - a queue, not secrets
    work, late, requests = 0.0, 0, 300_000
    for _ in range(requests):
        work = max(0.0, work - rng.expovariate(0.3))
        if work > 1.0:
            late += 1
        else:
            work += 1.0

    assert late / requests == pytest.approx(least_late_share(2.0, 0.3), rel=0.03)


def test_highest_load_is_where_the_quantile_is_reached() -> None:
    """At that load the quantile is the wish, a little above it is not."""
    load = highest_load(2.0, 0.99)

    assert equal_times_quantile(load - 0.001, 0.99) <= 2.0 < equal_times_quantile(load + 0.001, 0.99)


def test_unequal_times_have_a_longer_tail() -> None:
    """Of two queues of the same load the one with unequal service times is worse."""
    equal, unequal = (percentile(simulate(times, 0.3), 0.99) for times in ([1.0], [0.5, 1.5]))

    assert equal is not None
    assert unequal is not None
    assert unequal > equal * 1.1
