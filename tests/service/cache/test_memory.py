"""Tests of service/cache/memory.py."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.cache.memory import Claims, ScoreCache
from service.domain.budget import Terms
from service.telemetry.meters import CacheMeter
from tests.service.support import count

TTL_S = 10.0
ROOMY = 1_000_000
A, B, C = (bytes([number]) * 16 for number in range(1, 4))
SEARCH = Terms(deadline_s=100.0, priority="search", on_failure="degrade", tenant="default")


def new_cache() -> ScoreCache:
    """A cache with room for all of a test."""
    return ScoreCache(ROOMY, TTL_S, CacheMeter(CollectorRegistry()))


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in an event loop of its own."""

    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), timeout=30))

    run.__doc__ = test.__doc__
    run.__name__ = test.__name__
    return run


@in_loop
async def test_what_was_settled_is_known() -> None:
    """A pair is computed by the first who asks, and known from then on until its time is over."""
    cache = new_cache()
    with cache.claim([A, B], 0.0, SEARCH) as first:
        to_compute = first.to_compute
        first.resolve({0: 0.5, 1: -2.25}, 0.0)
    later = cache.claim([B, A, C], TTL_S - 1, SEARCH)
    too_late = cache.claim([A], TTL_S, SEARCH)

    assert [0, 1] == to_compute
    assert {0: -2.25, 1: 0.5} == later.known
    assert [[2], [0]] == [later.to_compute, too_late.to_compute]


@in_loop
async def test_a_pair_on_its_way_is_waited_for() -> None:
    """Whoever asks for a pair that is being computed gets its logit when it is settled, and not before."""
    cache = new_cache()
    leader, follower = cache.claim([A, B], 0.0, SEARCH), cache.claim([B, C], 0.0, SEARCH)
    early = await follower.wait(0.0)
    leader.resolve({1: 1.5}, 0.0)

    assert [1] == follower.to_compute
    assert {} == early
    assert {0: 1.5} == await follower.wait(0.0)


@in_loop
async def test_a_key_twice_in_a_list_is_computed_once() -> None:
    """The second place of a key is shared with the first."""
    claims = new_cache().claim([A, A, B, A], 0.0, SEARCH)
    to_compute = claims.to_compute
    claims.resolve({0: 0.5, 2: 1.0}, 0.0)

    assert [0, 2] == to_compute
    assert {1: 0.5, 3: 0.5} == await claims.wait(0.0)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_a_leader_that_fails_sets_its_followers_free(error: type[BaseException]) -> None:
    """However a claim ends, those who wait for its pairs are told to compute them, and nothing is left behind."""

    async def scenario() -> None:
        cache = new_cache()
        with pytest.raises(error), cache.claim([A, B], 0.0, SEARCH) as leader:  # noqa: PT012  what is tested
            follower = cache.claim([A, B], 0.0, SEARCH)
            leader.resolve({0: 0.5}, 0.0)
            raise error

        assert {0: 0.5, 1: None} == await follower.wait(0.0)
        assert cache.in_flight == 0
        assert [1] == cache.claim([A, B], 0.0, SEARCH).to_compute

    asyncio.run(scenario())


@in_loop
async def test_a_follower_that_is_cancelled_takes_nothing_along() -> None:
    """The others who wait for a pair still get it."""
    cache = new_cache()
    leader, gone, follower = (cache.claim([A], 0.0, SEARCH) for _ in range(3))
    waiting = asyncio.create_task(gone.wait(30.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    leader.resolve({0: 0.5}, 0.0)

    assert {0: 0.5} == await follower.wait(0.0)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_handed_on_only(logit: float) -> None:
    """Those who wait get it, as it would come out the same again; who asks later does not."""

    async def scenario() -> None:
        cache = new_cache()
        leader, follower = cache.claim([A], 0.0, SEARCH), cache.claim([A], 0.0, SEARCH)
        leader.resolve({0: logit}, 0.0)

        assert repr({0: logit}) == repr(await follower.wait(0.0))
        assert [0] == cache.claim([A], 0.0, SEARCH).to_compute

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("leader", "follower", "waits"),
    [
        ({}, {}, True),
        ({}, {"deadline_s": 101.0}, True),
        ({}, {"deadline_s": 99.0}, False),
        ({}, {"priority": "offline"}, True),
        ({"priority": "offline"}, {}, False),
        ({}, {"priority": "offline", "deadline_s": 99.0}, False),
        ({}, {"tenant": "other"}, False),
        ({}, {"on_failure": "error"}, True),
    ],
)
def test_nobody_waits_for_who_may_be_later(
    leader: dict[str, object], follower: dict[str, object], *, waits: bool
) -> None:
    """A pair is shared only with one of the same tenant, no lower priority and no later deadline."""

    async def scenario() -> None:
        cache = new_cache()
        cache.claim([A], 0.0, _terms(leader))

        assert waits == (not cache.claim([A], 0.0, _terms(follower)).to_compute)

    asyncio.run(scenario())


@in_loop
async def test_the_first_of_two_leaders_is_heard() -> None:
    """A pair that two compute is known when one of them has it, and given up when both have given it up."""
    cache = new_cache()
    slow = cache.claim([A, B], 0.0, _terms({"priority": "offline"}))
    fast = cache.claim([A, B], 0.0, SEARCH)
    follower = cache.claim([A, B], 0.0, SEARCH)
    slow.resolve({0: 0.5}, 0.0)
    fast.resolve({0: 0.5}, 0.0)
    fast.abandon()
    early = await follower.wait(0.0)
    slow.abandon()

    assert [0, 1] == sorted(follower.awaited)
    assert {0: 0.5} == early
    assert {0: 0.5, 1: None} == await follower.wait(0.0)
    assert cache.in_flight == 0


@in_loop
async def test_pairs_are_counted_by_how_they_were_taken() -> None:
    """Each pair of a claim is a hit, a miss or shared."""
    cache = new_cache()
    cache.claim([A], 0.0, SEARCH).resolve({0: 0.5}, 0.0)
    cache.claim([A, B, B, C], 0.0, SEARCH)

    assert (1, 3, 1) == tuple(
        count(each) for each in (cache.meter.hits, cache.meter.misses, cache.meter.joined)
    )


asked = st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=4)
moves = st.lists(
    st.tuples(st.sampled_from(["claim", "settle", "give up"]), asked, st.integers(0, 5)), max_size=30
)


@settings(deadline=None)
@given(moves)
def test_nobody_waits_in_vain(steps: list[tuple[str, list[bytes], int]]) -> None:
    """In any order of claims and ends, a shared pair is unsettled only while somebody computes it."""

    async def scenario() -> None:
        cache = ScoreCache(
            0, TTL_S, CacheMeter(CollectorRegistry())
        )  # remembers nothing, so that every pair is asked for again and again
        claims: list[Claims] = []
        for move, keys, number in steps:
            if move == "claim":
                claims.append(cache.claim(keys, 0.0, _terms({"deadline_s": float(number)})))
            elif claims:
                chosen = claims[number % len(claims)]
                chosen.resolve(
                    {chosen.to_compute[0]: 1.0}, 0.0
                ) if move == "settle" and chosen.to_compute else chosen.abandon()
            led = {claim.keys[index] for claim in claims for index in claim.to_compute}
            for claim in claims:
                unsettled = {
                    claim.keys[index] for index, future in claim.awaited.items() if not future.done()
                }
                assert unsettled <= led
            assert cache.in_flight <= len(led)
        for claim in claims:
            claim.abandon()

        assert all(future.done() for claim in claims for future in claim.awaited.values())
        assert cache.in_flight == 0

    asyncio.run(scenario())


def _terms(changes: dict[str, object]) -> Terms:
    return Terms(
        **(
            {"deadline_s": 100.0, "priority": "search", "on_failure": "degrade", "tenant": "default"}
            | changes
        )
    )  # type: ignore[arg-type]  # by name
