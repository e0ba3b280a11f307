"""Tests of service/cache/lookup.py."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.cache.lookup import cached_logits
from service.cache.memory import ScoreCache
from service.domain.budget import Terms
from service.telemetry.meters import CacheMeter

KEYS = [bytes([number]) * 16 for number in range(8)]
LOGITS = {key: float(number) - 3.5 for number, key in enumerate(KEYS)}


def terms(seconds: float = 30.0, tenant: str = "default") -> Terms:
    """Terms that end in so many seconds."""
    return Terms(time.monotonic() + seconds, "search", "degrade", tenant)


class Store:
    """A shared cache in a dictionary."""

    def __init__(self, logits: Mapping[bytes, float] | None = None) -> None:
        self.logits = dict(logits or {})
        self.asked: list[Sequence[bytes]] = []

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return what is there, a turn of the loop later."""
        self.asked.append(list(keys))
        await asyncio.sleep(0)
        return {key: self.logits[key] for key in keys if key in self.logits}

    def put_many(self, logits: Mapping[bytes, float]) -> None:
        """Store at once."""
        self.logits |= logits


class Engine:
    """Computes the pairs of one list when its gate is open; those in `fails` are left out, or raise."""

    def __init__(
        self, keys: Sequence[bytes], fails: Sequence[bytes] = (), error: Exception | None = None
    ) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.computed: list[bytes] = []
        self._keys, self._fails, self._error = keys, fails, error

    async def __call__(self, places: Sequence[int]) -> dict[int, float]:
        """Return the logits of places."""
        self.computed += [self._keys[place] for place in places]
        await self.gate.wait()
        if self._error is not None:
            raise self._error
        return {place: LOGITS[self._keys[place]] for place in places if self._keys[place] not in self._fails}


def by_place(keys: Sequence[bytes]) -> dict[int, float]:
    """The logits of a list, as they should come out."""
    return {index: LOGITS[key] for index, key in enumerate(keys)}


def new_cache() -> ScoreCache:
    """A cache with room for all of a test."""
    return ScoreCache(100_000, 60.0, CacheMeter(CollectorRegistry()))


def test_the_nearest_is_asked_first() -> None:
    """Memory answers before the shared cache, that before the engine, and what is found is kept on the way back."""

    async def scenario() -> None:
        cache, keys = new_cache(), KEYS[:3]
        store = Store({KEYS[1]: LOGITS[KEYS[1]]})
        await cached_logits(cache, store, keys[:1], Engine(keys), terms())
        engine = Engine(keys)
        first = await cached_logits(cache, store, keys, engine, terms())
        again = await cached_logits(cache, store, keys, Engine(keys, fails=keys), terms())

        assert [[KEYS[0]], KEYS[1:3]] == store.asked
        assert [KEYS[2]] == engine.computed
        assert by_place(keys) == first == again
        assert {key: LOGITS[key] for key in keys} == store.logits

    asyncio.run(scenario())


@pytest.mark.parametrize("has_store", [False, True])
def test_two_lists_compute_what_they_share_once(*, has_store: bool) -> None:
    """The second of two concurrent lists computes only what the first does not."""

    async def scenario() -> None:
        cache, store = new_cache(), Store() if has_store else None
        first, second = Engine(KEYS[:3]), Engine(KEYS[1:5])
        both = await asyncio.gather(
            cached_logits(cache, store, KEYS[:3], first, terms()),
            cached_logits(cache, store, KEYS[1:5], second, terms()),
        )

        assert [by_place(KEYS[:3]), by_place(KEYS[1:5])] == both
        assert (KEYS[:3], KEYS[3:5]) == (first.computed, second.computed)

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["raises", "leaves out", "is cancelled"])
def test_a_list_computes_what_another_gave_up(how: str) -> None:
    """If the list that was to compute a pair fails, is cancelled or drops it, the one that waits computes it."""

    async def scenario() -> None:
        cache, keys = new_cache(), KEYS[:2]
        failing = Engine(
            keys, keys if how == "leaves out" else (), RuntimeError() if how == "raises" else None
        )
        if how == "is cancelled":
            failing.gate.clear()
        engine = Engine(keys)
        leader = asyncio.create_task(cached_logits(cache, None, keys, failing, terms()))
        follower = asyncio.create_task(cached_logits(cache, None, keys, engine, terms()))
        await asyncio.sleep(0)
        if how == "is cancelled":
            leader.cancel()
        outcome = (await asyncio.gather(leader, return_exceptions=True))[0]

        assert by_place(keys) == await follower
        assert keys == engine.computed
        assert cache.in_flight == 0
        assert {"raises": RuntimeError, "is cancelled": asyncio.CancelledError, "leaves out": dict}[
            how
        ] is type(outcome)

    asyncio.run(scenario())


def test_nobody_waits_past_the_deadline() -> None:
    """A list whose pairs another computes too slowly goes without them when its time is over."""

    async def scenario() -> None:
        cache, slow, engine = new_cache(), Engine(KEYS[:1]), Engine(KEYS[:2])
        slow.gate.clear()
        leader = asyncio.create_task(cached_logits(cache, None, KEYS[:1], slow, terms(0.05)))
        await asyncio.sleep(0)
        logits = await asyncio.wait_for(cached_logits(cache, None, KEYS[:2], engine, terms(0.05)), 10)
        leader.cancel()

        assert {1: LOGITS[KEYS[1]]} == logits
        assert [KEYS[1]] == engine.computed

    asyncio.run(scenario())


def test_a_key_twice_is_computed_once() -> None:
    """A list with one pair in two places computes it once and has it in both."""

    async def scenario() -> None:
        keys = [KEYS[0], KEYS[1], KEYS[0]]
        engine = Engine(keys)

        assert by_place(keys) == await cached_logits(new_cache(), Store(), keys, engine, terms())
        assert keys[:2] == engine.computed

    asyncio.run(scenario())


def test_an_empty_list_asks_nobody() -> None:
    """No pairs, no logits, and neither cache nor engine is asked."""

    async def scenario() -> None:
        store, engine = Store(), Engine([])

        assert {} == await cached_logits(new_cache(), store, [], engine, terms())
        assert ([], []) == (store.asked, engine.computed)

    asyncio.run(scenario())


lists = st.lists(st.sampled_from(KEYS), min_size=1, max_size=5)
ends = st.sampled_from(["answers", "raises", "leaves out", "is cancelled"])


@settings(deadline=None, max_examples=200)
@given(
    requests=st.lists(st.tuples(lists, ends, st.sampled_from("ab")), min_size=1, max_size=6),
    has_store=st.booleans(),
    chance=st.randoms(),
)
def test_every_list_gets_what_can_be_had(
    *, requests: list[tuple[list[bytes], str, str]], has_store: bool, chance: Random
) -> None:
    """However concurrent lists overlap and end, one that neither fails nor is cancelled gets all its logits."""

    async def scenario() -> None:
        cache, store = new_cache(), Store() if has_store else None
        engines = [
            Engine(keys, keys if end == "leaves out" else (), RuntimeError() if end == "raises" else None)
            for keys, end, _ in requests
        ]
        for engine in engines:
            engine.gate.clear()
        tasks = [
            asyncio.create_task(cached_logits(cache, store, keys, engine, terms(tenant=tenant)))
            for engine, (keys, _, tenant) in zip(engines, requests, strict=True)
        ]
        order = list(range(len(requests)))
        chance.shuffle(order)
        for number in order:
            await asyncio.sleep(0)
            tasks[number].cancel() if requests[number][1] == "is cancelled" else engines[number].gate.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

        for (keys, end, _), outcome in zip(requests, outcomes, strict=True):
            if end == "answers":
                assert by_place(keys) == outcome
            elif isinstance(outcome, dict):
                assert outcome.items() <= by_place(keys).items()
        assert cache.in_flight == 0

    asyncio.run(scenario())
