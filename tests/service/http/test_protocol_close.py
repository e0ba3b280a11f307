"""Tests of service/http/protocol.py: when a connection ends, and that its client is told so, over real sockets."""

import hashlib
import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.support import WAIT_S, Process, ask, serving

KEY = "k" * 32
MOST = 60_000
BODY = json.dumps({"query": "red shoes", "documents": ["red shoes"]})
CLOSE = b"\r\nconnection: close\r\n"


@pytest.fixture(scope="module")
def locked(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that asks for a key, takes small bodies, and waits for a whole request longer than a test takes."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"shop {hashlib.sha256(KEY.encode()).hexdigest()}\n", encoding="utf-8")
    flags = ("--api-keys-file", str(keys), "--max-body-bytes", str(MOST), "--receipt-timeout-s", "300")
    with serving(tiny_bundle, "--workers", "1", *flags) as running:
        yield running


def _read_head(client: socket.socket) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = client.recv(65_536)
        assert part, "the connection ended without an answer"
        raw += part
    return raw


EARLY = {
    401: b"POST /v1/rerank HTTP/1.1\r\n",
    404: b"POST /nothing HTTP/1.1\r\nx-api-key: " + KEY.encode() + b"\r\n",
    405: b"PUT /v1/rerank HTTP/1.1\r\nx-api-key: " + KEY.encode() + b"\r\n",
    413: b"POST /v1/rerank HTTP/1.1\r\ncontent-type: application/json\r\nx-api-key: "
    + KEY.encode()
    + b"\r\n",
    415: b"POST /v1/rerank HTTP/1.1\r\ncontent-type: text/csv\r\nx-api-key: " + KEY.encode() + b"\r\n",
}


@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
@pytest.mark.parametrize("status", EARLY)
def test_a_refusal_before_the_body_ends_the_connection(locked: Process, status: int, framing: str) -> None:
    """A request that is refused before its body has come is told that the connection ends, and may send on."""
    chunked, length = framing == "chunked", MOST + (status == 413)
    head = EARLY[status] + b"host: x\r\n"
    head += b"expect: 100-continue\r\n" if framing == "expect" else b""
    head += b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: %d\r\n\r\n" % length
    with socket.create_connection(("127.0.0.1", locked.port), timeout=WAIT_S) as client:
        client.sendall(head)
        if chunked:
            client.sendall(
                b"%x\r\n" % length + b"x" * length
            )  # so that 413 is seen; the last chunk is not sent yet
        answer = _read_head(client)
        client.sendall(b"\r\n0\r\n\r\n" if chunked else b"x" * length)
        while part := client.recv(65_536):
            answer += part

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert CLOSE in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_refusal_of_a_whole_request_keeps_the_connection(locked: Process) -> None:
    """Where the body was read to its end, what is refused costs no connection."""
    key = f"x-api-key: {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", locked.port), timeout=WAIT_S) as client:
        for path, headers, status in (
            ("/v1/rerank", "", 401),
            ("/nothing", key, 404),
            ("/v1/rerank", key + "content-type: text/csv\r\n", 415),
            ("/v1/rerank", key + "content-type: application/json\r\n", 200),
        ):
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(BODY)}\r\n\r\n"
            client.sendall((head + BODY).encode())
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.getheader("connection")) == (status, None)
            answer.read()


def test_who_wants_to_go_is_let_go(process: Process) -> None:
    """A client that says Connection: close is answered so, with its body before or behind the answer's start."""
    head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=WAIT_S) as client:
        client.sendall(f"{head}content-length: {len(BODY)}\r\n\r\n{BODY}".encode())
        answer = b""
        while part := client.recv(65_536):
            answer += part

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(CLOSE) == 1


def test_a_pool_of_connections_loses_nothing_in_a_drain(tiny_bundle: Path) -> None:
    """Of 20 kept connections under load each is told to close once readiness is red, and every request is answered."""
    told: list[str] = []
    answered = threading.Semaphore(0)

    def client(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        try:
            while True:
                connection.request("POST", "/v1/rerank", BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                answered.release()
                if answer.status != 200 or answer.getheader("connection") == "close":
                    told.append(f"{answer.status} {answer.getheader('connection')}")
                    return
                time.sleep(0.01)
        except (OSError, http.client.HTTPException) as error:
            told.append(repr(error))
        finally:
            connection.close()

    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "5") as running:
        threads = [threading.Thread(target=client, args=(running.port,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            assert answered.acquire(timeout=WAIT_S)
        running.popen.send_signal(signal.SIGTERM)
        while ask(running.port, "GET", "/readyz")[0] == 200:
            pass
        for thread in threads:
            thread.join(WAIT_S)

        assert told == ["200 close"] * 20
        assert running.popen.wait(WAIT_S) == 0


def test_every_answer_of_a_drain_says_close(tiny_bundle: Path) -> None:
    """From the moment readiness is red both listeners say Connection: close, whatever they answer."""
    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "300") as running:
        running.popen.send_signal(signal.SIGTERM)
        while ask(running.port, "GET", "/readyz")[0] == 200:
            pass
        heads = []
        for port in (running.port, running.admin_port):
            for path in ("/readyz", "/livez", "/nothing"):
                with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
                    client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                    heads.append(_read_head(client))

        assert all(CLOSE in head for head in heads)


def test_a_request_that_is_arriving_is_part_of_the_drain(tiny_bundle: Path) -> None:
    """A request of which only some headers have come when the listener closes is answered too."""
    with serving(
        tiny_bundle, "--workers", "1", "--drain-delay-s", "0", "--receipt-timeout-s", "5"
    ) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as client:
            client.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: appl")
            time.sleep(0.1)  # so that it has been read
            running.popen.send_signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.01)
            client.sendall(f"ication/json\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}".encode())
            answer = _read_head(client)

        assert answer.startswith(b"HTTP/1.1 200")
        assert CLOSE in answer
        assert running.popen.wait(WAIT_S) == 0
