"""A second level of the score cache in Redis or Valkey, for several replicas.

Knows keys, logits and one server; does not know texts, requests, or the cache in memory.
Invariant: a lookup ends within its timeout and never raises; a server that is down, slow, full or garbled is a miss.

A lookup that is late is left alone: its connection goes on to read the reply, or to connect, for `PATIENCE_S` at most,
and then serves the next one. Whoever may write to the server may change rankings: its password is a key to them.
"""

import asyncio
import contextlib
import logging
import math
import time
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from service.cache.breaker import Breaker
from service.cache.pair_keys import KEY_BYTES
from service.settings import SettingsError
from service.telemetry.logs import event
from service.telemetry.meters import CacheMeter, Trouble

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX: Final = b"shelfrank:2:"
"""Begins the name of every pair on the server; the number changes when the form of a value does."""

SCHEMES: Final = {
    "valkey": "redis",
    "valkeys": "rediss",
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
}
PATIENCE_S: Final = 1.0
LOOKUPS: Final = 16  # at the same time, each on a connection of its own; more are misses
PENDING: Final = 16_384  # pairs that wait to be stored; more are dropped
BATCH: Final = 64  # pairs stored at once: 0.8 ms of the event loop, docs/decisions/0018-score-cache.md
_logit: Final = Struct("<d")
_value: Final = Struct("<dI")


class SharedCache:
    """Logits on a server that other replicas use too; its methods are called on the event loop."""

    def __init__(self, client: "Redis", meter: CacheMeter, *, timeout_s: float, ttl_s: float) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415  an extra

        self.meter = meter
        self._client = client
        self._errors = (
            RedisError,
            OSError,
            ValueError,
        )  # the last where a reply makes no sense to the client
        self._timeout_s = timeout_s
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._reads = Breaker()
        self._writes = Breaker()  # a server that is full refuses writes and still answers
        self._lookups: set[asyncio.Task[list[object] | Trouble]] = set()
        self._pending: deque[tuple[bytes, float]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open a connection before it is needed; a server that is not there is logged, not raised."""
        outcome = await self._look_up([bytes(KEY_BYTES)])
        if isinstance(outcome, Trouble):
            self.meter.troubles[outcome].inc()
            event("shared_cache_down", logging.WARNING, kind=outcome)

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return the logits that the server has, within the timeout."""
        logits = await self._get_many(keys) if keys else {}
        self.meter.remote_hits.inc(len(logits))
        self.meter.remote_misses.inc(len(keys) - len(logits))
        return logits

    def put_many(self, logits: Mapping[bytes, float]) -> None:
        """Have logits stored later, those that are finite; what finds no room is dropped."""
        finite = [(key, logit) for key, logit in logits.items() if math.isfinite(logit)]
        room = PENDING - len(self._pending) if self._writes.allow(time.monotonic()) else 0
        self._pending.extend(finite[:room])
        self.meter.dropped.inc(len(finite[room:]))
        if self._pending and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Give what is pending `PATIENCE_S` to be stored, then close the connections."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=PATIENCE_S)
        tasks = {*self._lookups, *({self._writer} if self._writer else ())}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(*self._errors):  # a server that is gone cannot be taken leave of
            await self._client.aclose()

    async def _get_many(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        if not self._reads.allow(time.monotonic()):
            return self._miss(Trouble.PAUSED)
        if len(self._lookups) >= LOOKUPS:
            return self._miss(Trouble.BUSY)
        lookup = asyncio.create_task(self._look_up(keys))
        self._lookups.add(lookup)
        lookup.add_done_callback(self._lookups.discard)
        await asyncio.wait({lookup}, timeout=self._timeout_s)
        if (
            not lookup.done()
        ):  # an event loop that others kept busy sees the time before the reply that has come
            await asyncio.sleep(0)
        outcome = lookup.result() if lookup.done() and not lookup.cancelled() else Trouble.TIMEOUT
        if isinstance(outcome, Trouble):
            if self._reads.fail(time.monotonic()):
                event("shared_cache_down", logging.WARNING, kind=outcome)
            return self._miss(outcome)
        if self._reads.succeed():
            event("shared_cache_up")
        values = {key: value for key, value in zip(keys, outcome, strict=True) if value is not None}
        logits = {key: _decode(key, value) for key, value in values.items()}
        known = {key: logit for key, logit in logits.items() if logit is not None}
        self.meter.troubles[Trouble.GARBAGE].inc(len(logits) - len(known))
        return known

    async def _look_up(self, keys: Sequence[bytes]) -> list[object] | Trouble:
        """Return the values of keys, in order, or why there are none."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                values: object = await self._client.mget([PREFIX + key for key in keys])
        except self._errors as error:
            return _trouble(error)
        return values if isinstance(values, list) and len(values) == len(keys) else Trouble.GARBAGE

    async def _write(self) -> None:
        """Store what is pending, batch by batch; give all of it up if one fails."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(BATCH, len(self._pending)))]
            try:
                async with asyncio.timeout(PATIENCE_S), self._client.pipeline(transaction=False) as pipeline:
                    for key, logit in batch:
                        pipeline.set(PREFIX + key, _encode(key, logit), px=self._ttl_ms)
                    await pipeline.execute()
            except self._errors as error:
                self._writes.fail(time.monotonic())
                self.meter.troubles[_trouble(error)].inc()
                self.meter.dropped.inc(len(batch) + len(self._pending))
                self._pending.clear()
            else:
                self._writes.succeed()
                self.meter.stored.inc(len(batch))

    def _miss(self, trouble: Trouble) -> dict[bytes, float]:
        self.meter.troubles[trouble].inc()
        return {}


def open_shared_cache(url: str, meter: CacheMeter, *, timeout_s: float, ttl_s: float) -> SharedCache:
    """Return the cache at a URL, which is not connected yet; SettingsError, without the URL, if it cannot be used."""
    try:
        from redis import asyncio as redis  # noqa: PLC0415  an extra, and 0.1 s that only its users pay
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError:
        raise SettingsError("cache_url needs the libraries of the extra redis: shelfrank[redis]") from None
    scheme, _, rest = url.partition("://")
    try:
        options: dict[str, Any] = {  # what the client's connections take by name
            "socket_timeout": PATIENCE_S,
            "socket_connect_timeout": PATIENCE_S,
            **redis.connection.parse_url(f"{SCHEMES[scheme]}://{rest}"),
            "protocol": 2,  # every server knows it, and it saves one round trip per connection
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": LOOKUPS + 1,
        }
        pool = redis.ConnectionPool(**options)
        pool.connection_class(**pool.connection_kwargs)  # raises now, not later, if an option does not exist
    except (KeyError, TypeError, ValueError):
        raise SettingsError(
            "cache_url: expected redis://, rediss://, valkey://, valkeys:// or unix:// and an address"
        ) from None
    return SharedCache(redis.Redis.from_pool(pool), meter, timeout_s=timeout_s, ttl_s=ttl_s)


def _encode(key: bytes, logit: float) -> bytes:
    """Return a value that can be verified: the logit and a checksum of it and its key."""
    return _value.pack(logit, _checksum(key, logit))


def _decode(key: bytes, value: object) -> float | None:
    """Return the logit of a value, None if we have not written it for this key."""
    if not isinstance(value, bytes) or len(value) != _value.size:
        return None
    logit, checksum = _value.unpack(value)
    return logit if math.isfinite(logit) and checksum == _checksum(key, logit) else None


def _checksum(key: bytes, logit: float) -> int:
    return zlib.crc32(key + _logit.pack(logit))


def _trouble(error: Exception) -> Trouble:
    """Say which kind of trouble an error of the client is."""
    from redis import exceptions  # noqa: PLC0415  it is loaded, or there would be no such error

    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return Trouble.TIMEOUT
    if isinstance(error, exceptions.AuthenticationError | exceptions.ResponseError):
        return Trouble.REFUSED
    if isinstance(error, OSError | exceptions.ConnectionError):
        return Trouble.CONNECTION
    return Trouble.GARBAGE
