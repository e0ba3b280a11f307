"""Tests of service/http/protocol.py, over real sockets to a real process."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.support import Process, serving

DEADLINE_S = 0.4
PATIENCE_S = 10.0
HEAD = b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = json.dumps({"query": "red shoes", "documents": ["red shoes"]}).encode()


@pytest.fixture(scope="module")
def hasty(tiny_bundle: Path) -> Iterator[Process]:
    """A service with a short deadline for receiving a request."""
    flags = ("--receipt-timeout-s", str(DEADLINE_S), "--max-body-bytes", "1048576", "--workers", "1")
    with serving(tiny_bundle, *flags) as running:
        yield running


def _connect(process: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE_S)


def _read_to_end(client: socket.socket) -> bytes:
    """Read until the service closes; a reset counts as closed."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def _read_answer(client: socket.socket) -> tuple[int, bytes]:
    """Read one answer by its content length."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += client.recv(65_536)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65_536)
    return int(head.split(b" ")[1]), body


def _post(client: socket.socket, body: bytes = BODY) -> tuple[int, bytes]:
    client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    return _read_answer(client)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b""),
        (b"POST /v1/re", b"HTTP/1.1 408"),
        (HEAD, b"HTTP/1.1 408"),
        (HEAD + b"content-length: 100\r\n\r\n", b"HTTP/1.1 408"),
        (HEAD + b"content-length: 100\r\n\r\n{", b"HTTP/1.1 408"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", b"HTTP/1.1 408"),
    ],
    ids=["silent", "in the first line", "in the headers", "before the body", "in the body", "in the chunks"],
)
def test_a_stalled_request_is_closed_at_the_deadline(hasty: Process, sent: bytes, expected: bytes) -> None:
    """A client that stops sending is told so once the deadline has passed; a silent one is just closed."""
    with _connect(hasty) as client:
        began_s = time.monotonic()
        client.sendall(sent)
        answer = _read_to_end(client)
        took_s = time.monotonic() - began_s

    assert answer[: len(expected)] == expected
    assert bool(answer) == bool(expected)
    assert 0.5 * DEADLINE_S <= took_s < PATIENCE_S


def test_a_trickled_request_is_closed_at_the_deadline(hasty: Process) -> None:
    """Sending a byte now and then does not move the deadline."""
    with _connect(hasty) as client:
        client.settimeout(0.05)
        began_s = time.monotonic()
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in HEAD * 100:
                client.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    answer = client.recv(100)
                    break
        took_s = time.monotonic() - began_s

    assert answer.startswith(b"HTTP/1.1 408")
    assert took_s < PATIENCE_S / 2


def test_a_kept_connection_may_idle_longer_than_the_deadline(hasty: Process) -> None:
    """The deadline is for receiving a request; between two requests the connection may rest."""
    with _connect(hasty) as client:
        first, _ = _post(client)
        client.settimeout(1.5 * DEADLINE_S)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        second, _ = _post(client)

    assert (200, 200) == (first, second)


def test_a_body_past_the_cap_is_answered_at_once(hasty: Process) -> None:
    """A declared or streamed body past the cap gets 413 while it is still on its way; then the connection ends."""
    for head, part in (
        (HEAD + b"content-length: 67108864\r\n\r\n", b"x" * 65_536),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
    ):
        with _connect(hasty) as client:
            client.sendall(head)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(20):
                    client.sendall(part)
            status, body = _read_answer(client)
            rest = _read_to_end(client)

        assert (413, "body_too_large", b"") == (status, json.loads(body)["error"], rest)


def test_a_refusal_of_the_protocol_has_the_shape_of_all_others(hasty: Process) -> None:
    """What is no HTTP request gets an error with the documented keys, `detail` among them."""
    with _connect(hasty) as client:
        client.sendall(b"POST /v1/rerank HTTP/1.1\r\n\r\n")
        _, body = _read_to_end(client).split(b"\r\n\r\n", 1)

    told = json.loads(body)
    assert {"error", "message", "detail", "loc", "id"} == set(told)
    assert ("malformed_http", told["message"]) == (told["error"], told["detail"])


def test_headers_without_end_are_refused(hasty: Process) -> None:
    """More than 64 KiB of headers get 431."""
    with _connect(hasty) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                client.sendall(b"x: " + b"y" * 1_000 + b"\r\n")
                time.sleep(0.001)  # so that they do not arrive as one piece
        answer = _read_to_end(client)

    assert answer.startswith(b"HTTP/1.1 431")


def test_headers_that_end_are_counted_too(hasty: Process) -> None:
    """More than 64 KiB of headers get 431 when they end within the same packet, and less is read."""
    for size, expected in ((100_000, b"HTTP/1.1 431"), (60_000, b"HTTP/1.1 200")):
        with _connect(hasty) as client:
            client.sendall(
                b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: " + b"y" * size + b"\r\n\r\n"
            )
            assert _read_to_end(client).startswith(expected)


UPGRADES = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n",
    "websocket": b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nsec-websocket-version: 13\r\n",
    "unknown": b"upgrade: anything/2\r\nconnection: upgrade\r\n",
    "twice": b"upgrade: h2c\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
}


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES.keys())
def test_an_upgrade_that_is_not_taken_is_ignored(process: Process, upgrade: bytes, framing: str) -> None:
    """A request with an Upgrade header is answered by its body, in one piece or many, and so is the next one."""
    if framing == "length":
        request = HEAD + upgrade + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    else:
        request = (
            HEAD + upgrade + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        )
    head_ends = request.index(b"\r\n\r\n") + 4
    for cuts in ([], [head_ends], [head_ends - 2], [40, head_ends + 5], list(range(1, len(request)))):
        with _connect(process) as client:
            for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
                client.sendall(request[start:end])
                if len(cuts) < 9:
                    time.sleep(0.01)  # so that they do not arrive as one piece
            status, answer = _read_answer(client)
            assert (status, len(json.loads(answer)["results"])) == (200, 1)
            assert _post(client)[0] == 200


def test_a_body_behind_an_upgrade_is_never_a_request(process: Process) -> None:
    """A body that looks like a request gets no answer of its own, however it is cut: nothing can be smuggled."""
    inner = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    head = HEAD + UPGRADES["h2c"] + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(inner)
    for parts in ([head + inner], [head, inner], [head[:-1], head[-1:] + inner[:9], inner[9:]]):
        with _connect(process) as client:
            for part in parts:
                client.sendall(part)
                time.sleep(0.05)  # so that they do not arrive as one piece
            answers = _read_to_end(client)
        assert answers.startswith(b"HTTP/1.1 400")
        assert answers.count(b"HTTP/1.1 ") == 1


def test_pipelined_upgrades_are_answered_in_order(process: Process) -> None:
    """Requests with and without an Upgrade header in one packet get one answer each."""
    plain = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    asking = HEAD + UPGRADES["h2c"] + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    last = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: h2c\r\n\r\n"
    with _connect(process) as client:
        client.sendall(asking + plain + asking + asking + last)
        answers = _read_to_end(client)

    assert answers.count(b"HTTP/1.1 200") == answers.count(b"HTTP/1.1 ") == 5


def test_a_tunnel_is_refused(process: Process) -> None:
    """CONNECT gets 405 and an end, and what follows it is not read as a request."""
    with _connect(process) as client:
        client.sendall(b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\nGET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        answers = _read_to_end(client)

    assert answers.startswith(b"HTTP/1.1 405")
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"GET / HTTP/9.9\r\n\r\n",
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: -5\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_http_does_no_harm(hasty: Process, raw: bytes) -> None:
    """Garbage is answered with a 4xx or closed, and the next client is served."""
    with _connect(hasty) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        answer = _read_to_end(client)
    with _connect(hasty) as client:
        status, _ = _post(client)

    assert not answer or not answer.startswith(b"HTTP/1.1 5")
    assert status == 200


def test_a_request_in_single_bytes_is_answered(process: Process) -> None:
    """However a request is cut, it is put together."""
    with _connect(process) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY:
            client.sendall(bytes([byte]))
        status, _ = _read_answer(client)

    assert status == 200


def test_pipelined_requests_are_answered_in_order(process: Process) -> None:
    """Two requests in one piece get two answers."""
    request = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    with _connect(process) as client:
        client.sendall(request + b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answers = _read_to_end(client)

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(b"relevance_score") < answers.index(b"alive")


def _count(process: Process, name: str) -> float:
    with socket.create_connection(("127.0.0.1", process.admin_port), timeout=PATIENCE_S) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        _, body = _read_answer(client)
    (line,) = (line for line in body.decode().splitlines() if line.startswith(name + " "))
    return float(line.rpartition(" ")[2])


def _ask_on(client: socket.socket, requests: bytes) -> None:
    while True:
        client.sendall(requests)
        time.sleep(0.005)


def test_who_reads_nothing_is_cut_off(tiny_bundle: Path) -> None:
    """A client that stops reading its answers is cut off after the time-out, and counted; others are served."""
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    with (
        serving(tiny_bundle, "--send-timeout-s", "0.5", "--workers", "1") as running,
        _connect(running) as client,
    ):
        with pytest.raises(ConnectionError):
            _ask_on(client, asked * 20)  # the answers fill every buffer between us
        with _connect(running) as other:
            assert _post(other)[0] == 200

        assert _count(running, "shelfrank_slow_readers_total") == 1


def test_who_reads_slowly_is_not_cut_off(tiny_bundle: Path) -> None:
    """As long as something of the answers is read now and then, the connection stays past the time-out."""
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    with (
        serving(tiny_bundle, "--send-timeout-s", "0.5", "--workers", "1") as running,
        _connect(running) as client,
    ):
        client.sendall(asked * 1_000)  # some 20 MB of answers, more than the buffers between us hold
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            assert client.recv(262_144)
            time.sleep(0.03)

        assert _count(running, "shelfrank_slow_readers_total") == 0


def test_time_counts_from_the_first_byte(process: Process) -> None:
    """What it took to receive a request is part of the time that its answer reports."""
    request = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    with _connect(process) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        totals = []
        for pause_s in (0.0, 0.5):
            client.sendall(request[:20])  # in the middle of the first line
            time.sleep(pause_s)
            client.sendall(request[20:])
            _, answer = _read_answer(client)
            totals.append(json.loads(answer)["timings_ms"]["total"])

    assert totals[0] < 400 <= totals[1]
