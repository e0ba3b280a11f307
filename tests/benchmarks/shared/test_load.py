"""The load generator tells the truth about when requests were due, sent and answered."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.shared.load import (
    Answer,
    Connection,
    Pool,
    Sample,
    closed_loop,
    open_loop,
    poisson_times,
    run,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def _server(*answers: list[bytes], stall_before: int | None = None, stall_s: float = 0.0) -> Iterator[str]:
    """Serve one connection after the other: each list holds the pieces of the answers of one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        served = 0
        for pieces in answers:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    if not connection.recv(65_536):
                        break
                    if served == stall_before:
                        time.sleep(stall_s)
                    connection.sendall(piece)
                    served += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(5)


def _send(url: str, requests: int, timeout_s: float = 5.0) -> list[Answer]:
    async def send() -> list[Answer]:
        pool = Pool(url, 1, timeout_s)
        await pool.open()
        answers = [await pool.send(pool.payload("GET", "/")) for _ in range(requests)]
        pool.close()
        return answers

    return run(send)


def test_answer_is_read_whole() -> None:
    """Status and body come back, and the times are in order."""
    with _server([OK, OK.replace(b"200", b"429").replace(b"Content-Length", b"content-length")]) as url:
        first, second = _send(url, 2)

    assert (first.status, first.body, second.status) == (200, b"ok", 429)
    assert first.sent_s <= first.done_s <= second.sent_s


def test_answer_in_pieces_is_read_whole() -> None:
    """An answer that arrives byte by byte is the same answer."""
    here, there = socket.socketpair()

    async def feed() -> Answer:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, sock=here)
        future = connection.request(b"GET / HTTP/1.1\r\n\r\n")
        for byte in OK:
            connection.data_received(bytes([byte]))
        connection.close()
        return await future

    with there:
        assert run(feed).body == b"ok"


def test_lost_connection_is_an_error_and_the_next_request_gets_a_new_one() -> None:
    """A server that hangs up costs one request, not the run."""
    with _server([OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"], [OK]) as url:
        statuses = [answer.status for answer in _send(url, 3)]

    assert statuses == [200, 0, 200]


def test_server_that_closes_is_believed() -> None:
    """After "connection: close" a new connection is opened at once."""
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with _server([closing], [OK]) as url:
        statuses = [answer.status for answer in _send(url, 2)]

    assert statuses == [200, 200]


def test_silent_server_is_an_error_after_the_timeout() -> None:
    """An answer that never comes ends as status 0."""
    with _server([b""]) as url:
        (answer,) = _send(url, 1, timeout_s=0.05)

    assert answer.status == 0
    assert answer.done_s - answer.sent_s < 5.0


@pytest.mark.parametrize("url", ["https://localhost", "localhost:8000", "http://", ""])
def test_address_that_is_not_plain_http(url: str) -> None:
    """Only http:// addresses are measured."""
    with pytest.raises(ValueError, match="http://"):
        Pool(url, 1, 1.0)


def test_stall_is_charged_to_every_request_that_was_due_in_it() -> None:
    """Requests due while the server stalls are late by what is left of the stall: nothing is omitted."""
    requests, gap_s, stall_s = 30, 0.01, 0.4

    async def drive() -> list[Sample]:
        pool = Pool(url, 1, 5.0)
        await pool.open()
        due_times = [number * gap_s for number in range(requests)]
        samples = await open_loop(
            pool, [pool.payload("GET", "/")], due_times, lambda body: float(body == b"ok")
        )
        pool.close()
        return samples

    with _server([OK] * requests, stall_before=5, stall_s=stall_s) as url:
        samples = run(drive)

    assert all(sample.status == 200 and sample.share == 1.0 for sample in samples)
    for number, sample in enumerate(samples[6:], start=6):
        left_s = stall_s - (number - 5) * gap_s
        assert sample.done_s - sample.due_s > left_s - 0.02
    # The one connection was taken, so the sender was late too; a run like this is void.
    assert samples[10].sent_s - samples[10].due_s > stall_s / 2


def test_closed_loop_counts_answers() -> None:
    """The capacity is answers over time, within the bound on requests."""

    async def drive() -> float:
        pool = Pool(url, 1, 5.0)
        await pool.open()
        rate = await closed_loop(
            pool, [pool.payload("GET", "/")], clients=1, duration_s=60.0, max_requests=20
        )
        pool.close()
        return rate

    start_s = time.monotonic()
    with _server([OK] * 20) as url:
        rate = run(drive)

    assert rate >= 20 / (time.monotonic() - start_s)


@given(st.floats(0.5, 500), st.floats(0.1, 20), st.integers(1, 500), st.integers())
def test_due_times_ascend_within_their_bounds(rate: float, duration_s: float, most: int, seed: int) -> None:
    """Times are ascending, within the duration, no more than allowed, and the same for the same seed."""
    times = poisson_times(rate, duration_s, most, random.Random(seed))  # noqa: S311 - load, not secrets

    assert len(times) <= most
    assert times == sorted(times)
    assert all(0 <= due_s < duration_s for due_s in times)
    assert times == poisson_times(rate, duration_s, most, random.Random(seed))  # noqa: S311 - as above


def test_due_times_are_poisson() -> None:
    """At 100 a second for 100 s there are about 10,000, and as many gaps over the mean as e^-1 says."""
    times = poisson_times(100.0, 100.0, 100_000, random.Random(1))  # noqa: S311 - load, not secrets
    gaps = [later - earlier for earlier, later in pairwise(times)]

    assert 9_700 < len(times) < 10_300
    assert 0.35 < sum(gap > 0.01 for gap in gaps) / len(gaps) < 0.39
