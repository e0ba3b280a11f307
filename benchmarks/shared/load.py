"""Sends HTTP requests at given times over kept-alive connections and notes when each was due, sent and answered.

Knows bytes and clocks; does not know what the requests mean.
Invariant: a request's latency counts from the time it was due, so a stalled server cannot hide its stall.

Why not an HTTP client library: httpx spends 0.5 to 1 ms of Python on a request, on the cores that the service needs,
and sends late when it is busy. The protocol below spends about 0.05 ms. Why select: asyncio rounds an epoll timeout
up to a whole millisecond, which would make every request late; select takes microseconds.
"""

import asyncio
import random
import selectors
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_MAX_HEAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: when it was written, when the answer was complete, status and body.

    Status 0 means that there was none: the connection failed or the time was up.
    """

    sent_s: float
    done_s: float
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of a run: when it was due, and what came of it, in seconds of the monotonic clock.

    `share` is the caller's verdict on the body, from 0 for useless to 1 for full; bodies are not kept, a long run has too
    many.
    """

    due_s: float
    sent_s: float
    done_s: float
    status: int
    share: float


class Connection(asyncio.Protocol):
    """One kept-alive connection that carries one request at a time."""

    def __init__(self) -> None:
        """Start closed; the event loop opens it."""
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._sent_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def request(self, payload: bytes) -> asyncio.Future[Answer]:
        """Write a request now and return the future of its answer."""
        assert self._transport is not None, "not connected"
        self._buffer.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        self._sent_s = time.monotonic()
        return self._answer

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        """Collect bytes; when the answer is complete, note the time."""
        self._buffer += data
        if self._answer is None or self._answer.done():
            return
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                self.close()
            return
        head = bytes(self._buffer[:end]).lower()
        body_from, length = end + len(_HEAD_END), _content_length(head)
        if len(self._buffer) >= body_from + length:
            done_s = time.monotonic()
            body = bytes(self._buffer[body_from : body_from + length])
            self._answer.set_result(Answer(self._sent_s, done_s, int(head[9:12]), body))
            if b"connection: close" in head:
                self.close()


class Pool:
    """A fixed number of connections to one address; who finds none free waits, and is late."""

    def __init__(self, url: str, size: int, timeout_s: float) -> None:
        """Take the address of `url`; `open` connects."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"expected an http:// address, got {url!r}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._size = size
        self._timeout_s = timeout_s
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()

    async def open(self) -> None:
        """Connect all of them."""
        for _ in range(self._size):
            self._free.put_nowait(await self._connect())

    def close(self) -> None:
        """Close all that are free."""
        while not self._free.empty():
            self._free.get_nowait().close()

    def payload(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the bytes of a whole request."""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    async def send(self, payload: bytes) -> Answer:
        """Send a request over a free connection; an answer of status 0 if it failed or took too long."""
        connection = await self._free.get()  # each is given back after the timeout at the latest
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                if not connection.is_open:
                    connection = await self._connect()
                return await connection.request(payload)
        except OSError:  # TimeoutError is one
            connection.close()
            return Answer(sent_s, time.monotonic(), 0, b"")
        finally:
            self._free.put_nowait(connection)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection


def poisson_times(rate: float, duration_s: float, max_requests: int, rng: random.Random) -> list[float]:
    """Return ascending due times in [0, duration): exponential gaps of mean 1 / rate, at most `max_requests`."""
    times: list[float] = []
    now = rng.expovariate(rate)
    while now < duration_s and len(times) < max_requests:
        times.append(now)
        now += rng.expovariate(rate)
    return times


async def open_loop(
    pool: Pool, payloads: Sequence[bytes], due_times: Sequence[float], share_of: Callable[[bytes], float]
) -> list[Sample]:
    """Send one request at each due time, whatever became of the earlier ones."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def send(due_s: float, payload: bytes) -> Sample:
        answer = await pool.send(payload)
        return Sample(due_s, answer.sent_s, answer.done_s, answer.status, share_of(answer.body))

    tasks = []
    for number, offset_s in enumerate(due_times):
        due_s = start_s + offset_s
        await asyncio.sleep(due_s - loop.time())
        tasks.append(loop.create_task(send(due_s, payloads[number % len(payloads)])))
    return await asyncio.gather(*tasks)


async def closed_loop(
    pool: Pool, payloads: Sequence[bytes], *, clients: int, duration_s: float, max_requests: int
) -> float:
    """Return the answers per second that so many clients get when each sends as soon as it has its answer."""
    start_s = time.monotonic()
    remaining = iter(range(max_requests))
    answered = 0

    async def client() -> None:
        nonlocal answered
        for number in remaining:
            answer = await pool.send(payloads[number % len(payloads)])
            answered += answer.status == 200
            if time.monotonic() - start_s >= duration_s:
                return

    await asyncio.gather(*(client() for _ in range(clients)))
    return answered / (time.monotonic() - start_s)


def run(main: Callable[[], Awaitable[Result]]) -> Result:
    """Run a coroutine on an event loop whose timers are not rounded up to milliseconds."""

    async def awaited() -> Result:
        return await main()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(awaited())


def _content_length(head: bytes) -> int:
    start = head.find(_LENGTH)
    if start < 0:
        return 0
    return int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0])
