"""Tests of service/http/connections.py: who gives way to whom, then a real process with few descriptors."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.http.connections import ConnectionLimiter
from service.telemetry.metrics import Metrics
from tests.service.support import WAIT_S, Process, ask, serving

LIMIT = 180
LIMITED = f"""
import resource, sys
from service.__main__ import main
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
sys.exit(main())
"""
HEAD = b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n"
BODY = json.dumps({"query": "red shoes", "documents": ["red shoes"]})


class Connection:
    """A connection that notes when it gave way."""

    def __init__(self, connections: ConnectionLimiter) -> None:
        self.limiter = connections
        self.is_gone = False
        connections.add(self)

    def close_now(self) -> None:
        """Note it; the place is free later."""
        self.is_gone = True


def test_who_has_waited_longest_gives_way() -> None:
    """In a full room the one gives way that has waited longest for its client; nobody does who is being served."""
    connections = ConnectionLimiter(3, Metrics())
    served, old, new = (Connection(connections) for _ in range(3))
    connections.mark_busy(served)
    connections.mark_idle(old)
    guests = [Connection(connections) for _ in range(2)]

    assert [False, True, True] == [guest.is_gone for guest in (served, old, new)]
    assert not any(guest.is_gone for guest in guests)


def test_a_guest_is_turned_away_where_all_are_served() -> None:
    """If nobody waits for a client, the new connection is closed, and a place given back is one."""
    connections = ConnectionLimiter(1, Metrics())
    first = Connection(connections)
    connections.mark_busy(first)
    turned_away = Connection(connections)
    connections.remove(turned_away)
    connections.remove(first)
    connections.mark_idle(first)  # one that has left takes no place any more

    assert (False, True) == (first.is_gone, turned_away.is_gone)
    assert not Connection(connections).is_gone


def test_it_is_told_now_and_then() -> None:
    """Every connection that gives way is counted."""
    metrics = Metrics()
    connections = ConnectionLimiter(1, metrics)
    for _ in range(5):
        Connection(connections)

    assert metrics.registry.get_sample_value("shelfrank_shed_connections_total") == 4


@pytest.fixture(scope="module")
def limited(tiny_bundle: Path) -> Iterator[Process]:
    """A service that may open few files, and waits long for a request."""
    flags = ("--workers", "1", "--receipt-timeout-s", "300")
    with serving(tiny_bundle, *flags, program=("-c", LIMITED)) as running:
        yield running


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n{"], ids=["silent", "in the head", "in the body"])
@pytest.mark.parametrize("port", ["port", "admin_port"])
def test_health_and_metrics_answer_when_descriptors_run_out(limited: Process, port: str, sent: bytes) -> None:
    """With more idle connections than files may be open, both listeners and rerank answer, and one line says so."""
    with contextlib.ExitStack() as stack:
        for _ in range(2 * LIMIT):
            client = socket.create_connection(("127.0.0.1", getattr(limited, port)), timeout=WAIT_S)
            stack.enter_context(client)
            with contextlib.suppress(ConnectionError):
                client.sendall(sent)
        answers = [ask(limited.port, "GET", path)[0] for path in ("/livez", "/readyz")]
        answers += [ask(limited.admin_port, "GET", path)[0] for path in ("/livez", "/readyz", "/metrics")]
        answers += [ask(limited.port, "POST", "/v1/rerank", BODY)[0]]
        scraped = ask(limited.admin_port, "GET", "/metrics")[1].decode()

    assert answers == [200] * 6
    assert "shelfrank_shed_connections_total 0.0" not in scraped
    assert any(line["event"] == "connections_full" for line in limited.lines)


def test_who_asks_is_kept_and_who_idles_gives_way(limited: Process) -> None:
    """A connection that is used stays while hundreds of idle ones come after it."""
    kept = http.client.HTTPConnection("127.0.0.1", limited.port, timeout=WAIT_S)
    with contextlib.ExitStack() as stack, contextlib.closing(kept):
        for _ in range(2 * LIMIT // 10):
            for _ in range(10):
                stack.enter_context(socket.create_connection(("127.0.0.1", limited.port), timeout=WAIT_S))
            kept.request("GET", "/livez")
            own = kept.sock
            answer = kept.getresponse()
            answer.read()
            assert (answer.status, kept.sock) == (200, own)
