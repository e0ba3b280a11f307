"""Tests of service/telemetry/meters.py."""

import time
from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.cache.memory import ScoreCache
from service.domain.budget import PRIORITIES, Terms
from service.domain.ranking import Unscored
from service.telemetry.meters import (
    CANDIDATE_ROLES,
    DECISIONS,
    STAGES,
    UNSCORED,
    BudgetMeter,
    CacheMeter,
    CatalogueMeter,
    RolloutMeter,
    Trouble,
    stage_missed,
)

TERMS = Terms(deadline_s=1e9, priority="search", on_failure="degrade", tenant="default")


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """The value of one series."""
    return registry.get_sample_value(name, labels)


def test_the_causes_are_the_rankings() -> None:
    """The closed set of causes is that of the ranking, in the same order of gravity."""
    assert UNSCORED == tuple(field.name for field in fields(Unscored))


def test_every_counted_series_exists_from_the_start() -> None:
    """Each priority with each decision, each stage but the whole, and each cause start at 0."""
    registry = CollectorRegistry()
    BudgetMeter(registry)

    for priority in PRIORITIES:
        for decision in DECISIONS:
            assert value(registry, "shelfrank_admitted_total", priority=priority, decision=decision) == 0
    for stage in STAGES[:-1]:
        assert value(registry, "shelfrank_deadline_misses_total", stage=stage) == 0
    assert value(registry, "shelfrank_deadline_misses_total", stage="total") is None
    for reason in UNSCORED:
        assert value(registry, "shelfrank_degraded_total", reason=reason) == 0


def test_a_late_answer_has_a_negative_slack() -> None:
    """What is left of a budget falls into milliseconds on both sides of 0; the bucket up to 0 holds the late ones."""
    registry = CollectorRegistry()
    meter = BudgetMeter(registry)
    for slack_s in (-0.0005, -2.0, 0.0015):
        meter.slack_seconds.observe(slack_s)

    assert value(registry, "shelfrank_budget_slack_seconds_bucket", le="-0.001") == 1
    assert value(registry, "shelfrank_budget_slack_seconds_bucket", le="0.0") == 2
    assert value(registry, "shelfrank_budget_slack_seconds_bucket", le="0.002") == 3
    assert value(registry, "shelfrank_budget_slack_seconds_count") == 3


@pytest.mark.parametrize("late", STAGES[:-1])
def test_a_miss_is_that_of_the_stage_that_crossed_the_budget(late: str) -> None:
    """With a second in each stage, a budget that ends in the middle of a stage is missed there."""
    times = dict.fromkeys(STAGES, 1.0)

    assert stage_missed(times, STAGES.index(late) + 0.5) == late
    assert stage_missed(times, len(STAGES) - 1) is None


def test_the_catalogue_counts_and_is_read() -> None:
    """Lookups are counted by result; the number of products and their bytes are read at a scrape."""
    registry = CollectorRegistry()
    catalogue, products = CatalogueMeter(registry), [1]
    catalogue.products.set_function(lambda: len(products))
    catalogue.bytes.set(4_096)
    catalogue.hits.inc(8)
    catalogue.misses.inc(9)
    products.append(2)

    assert value(registry, "shelfrank_catalogue_lookups_total", result="hit") == 8
    assert value(registry, "shelfrank_catalogue_lookups_total", result="miss") == 9
    assert value(registry, "shelfrank_catalogue_products") == 2
    assert value(registry, "shelfrank_catalogue_bytes") == 4_096


def test_agreement_is_told_while_there_is_a_newcomer() -> None:
    """A role has no agreement before lists were compared, then the three values, and none when it has gone."""
    registry = CollectorRegistry()
    meter = RolloutMeter(registry)
    names = [f"shelfrank_canary_{name}" for name in ("overlap_at_10", "kendall_tau", "score_difference")]

    assert [value(registry, name, role="canary") for name in names] == [None] * 3
    meter.set_agreement("canary", overlap_at_10=0.9, kendall_tau=-0.5, score_difference=0.01)
    assert [value(registry, name, role="canary") for name in names] == [0.9, -0.5, 0.01]
    assert [value(registry, name, role="shadow") for name in names] == [None] * 3
    meter.clear_agreement("canary")
    meter.clear_agreement("shadow")
    assert b'role="canary"}' not in b"".join(
        line for line in generate_latest(registry).splitlines() if b"overlap" in line
    )


def test_reloads_and_comparisons_start_at_zero() -> None:
    """Both results of a reload and both newcomers are there before anything happened."""
    registry = CollectorRegistry()
    RolloutMeter(registry).reloads["failed"].inc()

    assert value(registry, "shelfrank_reloads_total", result="done") == 0
    assert value(registry, "shelfrank_reloads_total", result="failed") == 1
    assert value(registry, "shelfrank_canary_aborts_total") == 0
    assert [value(registry, "shelfrank_canary_lists_total", role=role) for role in CANDIDATE_ROLES] == [0, 0]


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of nothing yet."""
    return CollectorRegistry()


@pytest.fixture
def meter(registry: CollectorRegistry) -> CacheMeter:
    """A meter that is scraped with it."""
    return CacheMeter(registry)


def test_every_series_of_the_caches_is_there_at_zero(meter: CacheMeter, registry: CollectorRegistry) -> None:
    """Every series is there before there is a cache, so that rates start at zero."""
    assert set(meter.troubles) == set(Trouble)
    for result in ("hit", "miss", "joined"):
        assert registry.get_sample_value("shelfrank_cache_lookups_total", {"result": result}) == 0
    for trouble in Trouble:
        labels = {"trouble": trouble.value}
        assert registry.get_sample_value("shelfrank_cache_remote_troubles_total", labels) == 0
    assert registry.get_sample_value("shelfrank_cache_evictions_total") == 0
    assert registry.get_sample_value("shelfrank_cache_bytes") == 0


def test_cache_lookups_are_told_as_they_went(meter: CacheMeter, registry: CollectorRegistry) -> None:
    """Of three pairs one is computed here and one waits for it; asked for again, what was computed is a hit."""
    cache = ScoreCache(65_536, 60.0, meter)
    first, second = b"1" * 16, b"2" * 16
    with cache.claim([first], time.monotonic(), TERMS) as claims:
        claims.resolve({0: 0.5}, time.monotonic())
    with cache.claim([first, second], time.monotonic(), TERMS) as claims:
        claims.abandon()

    def lookups(result: str) -> float | None:
        return registry.get_sample_value("shelfrank_cache_lookups_total", {"result": result})

    assert [lookups(result) for result in ("hit", "miss", "joined")] == [1, 2, 0]
    assert (registry.get_sample_value("shelfrank_cache_bytes") or 0) > 0
