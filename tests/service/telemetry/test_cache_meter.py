"""Tests of service/telemetry/cache_meter.py."""

import time

import pytest
from prometheus_client import CollectorRegistry

from service.cache.memory import ScoreCache
from service.domain.budget import Terms
from service.telemetry.cache_meter import CacheMeter, SharedCounts, Trouble

TERMS = Terms(deadline_s=1e9, priority="search", on_failure="degrade", tenant="default")


@pytest.fixture
def meter() -> CacheMeter:
    """A meter of nothing yet."""
    return CacheMeter()


@pytest.fixture
def registry(meter: CacheMeter) -> CollectorRegistry:
    """A registry that scrapes it."""
    registry = CollectorRegistry()
    registry.register(meter)
    return registry


def test_without_a_cache_all_is_zero(registry: CollectorRegistry) -> None:
    """Every series is there before there is a cache, so that rates start at zero."""
    for result in ("hit", "miss", "joined"):
        assert registry.get_sample_value("shelfrank_cache_lookups_total", {"result": result}) == 0
    for trouble in Trouble:
        labels = {"trouble": trouble.value}
        assert registry.get_sample_value("shelfrank_cache_remote_troubles_total", labels) == 0
    assert registry.get_sample_value("shelfrank_cache_evictions_total") == 0
    assert registry.get_sample_value("shelfrank_cache_bytes") == 0


def test_lookups_are_told_as_they_went(meter: CacheMeter, registry: CollectorRegistry) -> None:
    """Of three pairs one is computed here and one waits for it; asked for again, what was computed is a hit."""
    cache = ScoreCache(max_bytes=65_536, ttl_s=60.0)
    meter.watch(cache)
    first, second = b"1" * 16, b"2" * 16
    with cache.claim([first], time.monotonic(), TERMS) as claims:
        claims.settle({0: 0.5}, time.monotonic())
    with cache.claim([first, second], time.monotonic(), TERMS) as claims:
        claims.give_up()

    def lookups(result: str) -> float | None:
        return registry.get_sample_value("shelfrank_cache_lookups_total", {"result": result})

    assert [lookups(result) for result in ("hit", "miss", "joined")] == [1, 2, 0]
    assert (registry.get_sample_value("shelfrank_cache_bytes") or 0) > 0


def test_the_shared_cache_is_told_of(meter: CacheMeter, registry: CollectorRegistry) -> None:
    """Hits, writes and troubles of the shared cache stand under its own names."""
    counts = SharedCounts(hits=1, misses=2, stored=3, dropped=4)
    counts.troubles[Trouble.TIMEOUT] = 5
    meter.watch(ScoreCache(0, 1.0), counts)
    counts.hits += 10

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"shelfrank_cache_remote_{name}_total", labels)

    assert [value("lookups", result=result) for result in ("hit", "miss")] == [11, 2]
    assert [value("writes", result=result) for result in ("stored", "dropped")] == [3, 4]
    assert [value("troubles", trouble=trouble) for trouble in ("timeout", "paused")] == [5, 0]
