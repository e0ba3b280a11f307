"""Tests of service/http/protocol.py against h11, another reader of HTTP: both see the same requests, or both refuse."""

import asyncio
import itertools
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11
import pytest
import uvicorn
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.http.connections import ConnectionLimiter
from service.http.protocol import GuardedProtocol, protocol_class
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.support import WAIT_S, Process

TURNS = 12  # of the event loop, in which a request is taken up, read and answered
_ORIGIN = re.compile(rb"^[a-z]+://[^/?]*")  # of a target in absolute form
Told = tuple[bytes, bytes, bytes]  # method, target, body


@dataclass
class Seen:
    """What a reader made of a connection's bytes."""

    requests: list[Told] = field(default_factory=list)
    ended: bool = False  # nothing more is read
    answers: list[int] = field(default_factory=list)


def _protocol() -> type[GuardedProtocol]:
    metrics = Metrics()
    patient = Settings(receipt_timeout_s=60, send_timeout_s=60)
    return protocol_class(patient, metrics, lambda: False, ConnectionLimiter(1, metrics))


class Reader:
    """Our protocol on a real connection, with an application that reads every request to its end and notes it."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._seen = Seen()
        self._config = uvicorn.Config(
            self._note,
            http=_protocol(),
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
        )
        self._config.load()

    async def _note(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        self._seen.requests.append((scope["method"].encode(), scope["raw_path"] + query, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def read(self, pieces: list[bytes]) -> Seen:
        """Feed a new connection."""
        return self.loop.run_until_complete(self._read(pieces))

    async def _read(self, pieces: list[bytes]) -> Seen:
        self._seen = Seen()
        ours, theirs = socket.socketpair()
        made: list[GuardedProtocol] = []

        def make() -> GuardedProtocol:
            made.append(self._config.http_protocol_class(self._config, ServerState(), {}))  # type: ignore[arg-type, operator]
            return made[0]

        transport, protocol = await self.loop.connect_accepted_socket(make, ours)
        for piece in pieces:
            if transport.is_closing():
                break
            protocol.data_received(piece)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        for _ in range(TURNS * 4):
            await asyncio.sleep(0)
        seen, self._seen = self._seen, Seen()
        seen.ended = transport.is_closing()
        transport.abort()
        await asyncio.sleep(0)
        with theirs:
            theirs.settimeout(0)
            try:
                raw = theirs.recv(1 << 20)
            except (BlockingIOError, ConnectionResetError):
                raw = b""
        seen.answers = [int(status) for status in re.findall(rb"HTTP/1\.1 ([2-9]\d\d) ", raw)]
        return seen


def oracle(raw: bytes) -> Seen:
    """What h11 makes of the same bytes, where it is as lenient as RFC 9112 allows.

    Empty lines before a request are skipped (2.2), and the request line's parts may lie more than one blank apart (3).
    """
    seen = Seen()
    while True:
        connection, body = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20), b""
        line, end, rest = raw.lstrip(b"\r\n").partition(b"\r\n")
        connection.receive_data(re.sub(rb" +", b" ", line) + end + rest)
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    told = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return seen
        except h11.RemoteProtocolError:
            seen.ended = True
            return seen
        seen.requests.append((told.method, _ORIGIN.sub(b"", told.target), body))
        connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            seen.ended = True
            return seen
        raw = connection.trailing_data[0]


METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"]
TARGETS = [b"/", b"/v1/rerank", b"/a?b=c", b"/%41", b"*", b"http://x/y?z"]
HOSTS = [b"host: x", b"Host: example.com:80", b"HOST:x"]
OTHERS = [
    b"connection: close",
    b"connection: keep-alive",
    b"Connection: Upgrade, HTTP2-Settings",
    b"connection: upgrade",
    b"upgrade: h2c",
    b"Upgrade: websocket",
    b"expect: 100-continue",
    b"te: trailers",
    b"trailer: x",
    b"accept:*/*",
    b"x-empty:",
    b"x-spaces:  z  ",
]
NO_CODINGS = [b"gzip, chunked", b"chunked, chunked", b"gzip", b"identity", b"chunked, gzip", b"", b"xchunked"]
INNER = b"GET /inner HTTP/1.1\r\nhost: x\r\n\r\n"
BODIES = st.sampled_from([b"", b"{}", INNER, b"\r\n\r\n", b"0\r\n\r\n"]) | st.binary(max_size=40)


@st.composite
def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    parts = []
    while body:
        size = draw(st.integers(1, len(body)))
        line = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b"])) % size
        parts.append(line + b"\r\n" + body[:size] + b"\r\n")
        body = body[size:]
    return b"".join(
        [*parts, draw(st.sampled_from([b"0\r\n\r\n", b"00\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nt: v\r\n\r\n"]))]
    )


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """Draw a request that is right, or wrong in what h11 refuses: its Host headers or its transfer codings."""
    hosts = draw(st.sampled_from([1] * 18 + [0, 2]))
    headers = [
        *draw(st.lists(st.sampled_from(HOSTS), min_size=hosts, max_size=hosts)),
        *draw(st.lists(st.sampled_from(OTHERS), max_size=4)),
    ]
    body, framing = (
        draw(BODIES),
        draw(st.sampled_from(["none"] + ["length"] * 4 + ["chunked"] * 4 + ["coding", "coded twice"])),
    )
    if framing == "none":
        body = b""
    elif framing == "length":
        headers.append(b"content-length: %d" % len(body))
    else:
        coding = (
            draw(st.sampled_from(NO_CODINGS))
            if framing == "coding"
            else draw(st.sampled_from([b"chunked", b"Chunked"]))
        )
        headers += [b"transfer-encoding: " + coding] * (2 if framing == "coded twice" else 1)
        body = draw(_chunked(body))
    version = draw(st.sampled_from([b"1.1"] * 9 + [b"1.0"]))
    line = draw(st.sampled_from(METHODS)) + b" " + draw(st.sampled_from(TARGETS)) + b" HTTP/" + version
    return b"\r\n".join([line, *draw(st.permutations(headers)), b"", b""]) + body


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """Draw requests of which a few bytes are missing, changed or added."""
    raw = b"".join(draw(st.lists(_requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 3))):
        place, width = draw(st.integers(0, len(raw))), draw(st.integers(0, 2))
        new = draw(
            st.sampled_from(
                [b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b";", b"\0", b"0", b"1", b"a", b"\xff"]
            )
        )
        raw = raw[:place] + new + raw[place + width :]
    return raw


def _cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at places given as shares of a thousand."""
    ends = sorted({place * len(raw) // 1_000 for place in places} | {0, len(raw)})
    return [raw[start:end] for start, end in itertools.pairwise(ends)]


CUTS = st.lists(st.integers(0, 1_000), max_size=5)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """Our protocol, for as many connections as wanted."""
    made = Reader()
    yield made
    made.loop.close()


@settings(max_examples=300)
@given(requests=st.lists(_requests(), min_size=1, max_size=4), cuts=CUTS)
def test_the_same_requests_are_seen(reader: Reader, requests: list[bytes], cuts: list[int]) -> None:
    """Pipelined requests, cut anywhere, have the methods, targets, bodies and the number that h11 reads, or end where it ends."""
    raw = b"".join(requests)
    expected, seen = oracle(raw), reader.read(_cut(raw, cuts))

    assert (seen.requests, seen.ended) == (expected.requests, expected.ended)
    assert seen.answers[: len(seen.requests)] == [200] * len(seen.requests)
    assert len(seen.answers) <= len(seen.requests) + 1


@settings(max_examples=400)
@given(raw=_damaged(), cuts=CUTS)
def test_damage_makes_no_other_request(reader: Reader, raw: bytes, cuts: list[int]) -> None:
    """Of damaged requests none is read otherwise than h11 reads it, and none that h11 refuses; fewer only at an end."""
    expected, seen = oracle(raw), reader.read(_cut(raw, cuts))

    assert seen.requests == expected.requests[: len(seen.requests)]
    assert seen.ended or (seen.requests == expected.requests and not expected.ended)
    assert len(seen.answers) <= len(seen.requests) + 1


REFUSED = {
    "no host": (400, [b""]),
    "two hosts": (400, [b"host: x", b"host: y"]),
    "the same host twice": (400, [b"host: x", b"host: x"]),
    "length and coding": (400, [b"host: x", b"content-length: 5", b"transfer-encoding: chunked"]),
    "two lengths": (400, [b"host: x", b"content-length: 5", b"content-length: 6"]),
    "coding twice": (400, [b"host: x", b"transfer-encoding: chunked", b"transfer-encoding: chunked"]),
    "list of codings": (501, [b"host: x", b"transfer-encoding: gzip, chunked"]),
    "other coding": (501, [b"host: x", b"transfer-encoding: identity, chunked"]),
}


@pytest.mark.parametrize(("status", "headers"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("which", ["port", "admin_port"])
def test_what_another_server_may_read_otherwise_is_refused(
    process: Process, which: str, status: int, headers: list[bytes]
) -> None:
    """Hosts and bounds of a body that are not told plainly get one refusal on both listeners, and the connection ends."""
    head = b"\r\n".join([b"GET /livez HTTP/1.1", *filter(None, headers), b"", b""])
    with socket.create_connection(("127.0.0.1", getattr(process, which)), timeout=WAIT_S) as client:
        client.sendall(head + b"0\r\n\r\n" + INNER)
        answer = b""
        while part := client.recv(65_536):
            answer += part

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] in {
        "malformed_http",
        "unknown_transfer_coding",
    }


@pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/1.2", b" HTTP/2.0"])
def test_other_versions_are_refused(reader: Reader, version: bytes) -> None:
    """A request in no version, or in one that is neither 1.0 nor 1.1, is no request."""
    seen = reader.read([b"GET /livez" + version + b"\r\nhost: x\r\n\r\n"])

    assert (seen.requests, seen.answers, seen.ended) == ([], [400], True)
