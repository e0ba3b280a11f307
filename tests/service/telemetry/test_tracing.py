"""Tests of service/telemetry/tracing.py, with a real receiver of OTLP over HTTP."""

import contextlib
import gzip
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from service.app.application import build_app
from service.rollout.versions import Version, Versions
from service.settings import Settings, SettingsError
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import QUEUED_SPANS, Span, Tracing, open_tracing, stage_spans
from tests.service.support import JSON, ROOT, WAIT_S, FakeSession, Served, exchange, fake_bench

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, INTERNAL = 2, 1  # kinds of spans on the wire
TIMES = {"receive": 0.001, "parse": 0.002, "queue": 0.003, "tokenize": 0.004, "infer": 0.05, "respond": 0.001}
FACTS: Mapping[str, str | int | float | bool] = {"request_id": "r1", "documents": 50, "degraded": "deadline"}
SHORT_S = 0.2


class Receiver:
    """A collector that keeps the spans it is sent; `gate` is waited for before each answer."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            """Takes one export."""

            def do_POST(self) -> None:
                """Keep what is sent and say thanks."""
                raw = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    raw = gzip.decompress(raw)
                receiver.gate.wait(WAIT_S)
                receiver.requests.append(ExportTraceServiceRequest.FromString(raw))
                body = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # whoever sent it has given up
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        self._thread = threading.Thread(
            target=lambda: self.server.serve_forever(poll_interval=0.01), daemon=True
        )
        self._thread.start()

    @property
    def spans(self) -> list[Any]:
        """All spans that have arrived."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        """Stop."""
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(WAIT_S)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector on a free port."""
    running = Receiver()
    yield running
    running.close()


def opened(url: str, sample: float = 1.0) -> Tracing:
    """Tracing to a receiver."""
    tracing = open_tracing(Settings(otel_endpoint=url, otel_sample=sample), "1.2.3")
    assert tracing is not None
    return tracing


def record(tracing: Tracing, traceparent: str | None = None, **headers: str) -> str:
    """Record the one request of these tests."""
    if traceparent is not None:
        headers["traceparent"] = traceparent
    began_s = time.monotonic() - sum(TIMES.values())
    whole: Span = ("POST /v1/rerank", began_s, began_s + sum(TIMES.values()))
    return tracing.record(headers, whole, stage_spans(began_s, TIMES), FACTS)


def test_a_request_arrives_with_its_stages(receiver: Receiver) -> None:
    """One server span holds a child for each stage, end to end, at the times that were measured."""
    tracing = opened(receiver.url)
    before_ns = time.time_ns()
    trace_id = record(tracing)
    tracing.close()
    whole = next(span for span in receiver.spans if span.kind == SERVER)
    stages = [span for span in receiver.spans if span.kind == INTERNAL]

    assert re.fullmatch(r"[0-9a-f]{32}", trace_id)
    assert {span.trace_id.hex() for span in receiver.spans} == {trace_id}
    assert whole.name == "POST /v1/rerank"
    assert whole.parent_span_id == b""
    assert {span.parent_span_id for span in stages} == {whole.span_id}
    assert [span.name for span in stages] == list(TIMES)
    for span, seconds in zip(stages, TIMES.values(), strict=True):
        assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(seconds * 1e9, abs=2_000)
    assert stages[0].start_time_unix_nano == whole.start_time_unix_nano
    assert stages[-1].end_time_unix_nano == pytest.approx(whole.end_time_unix_nano, abs=2_000)
    assert abs(whole.end_time_unix_nano - before_ns) < 1e9


def test_a_span_tells_who_and_what(receiver: Receiver) -> None:
    """The facts are attributes under our prefix, and the resource is this service in this version."""
    tracing = opened(receiver.url)
    record(tracing)
    tracing.close()
    whole = next(span for span in receiver.spans if span.kind == SERVER)
    resource = receiver.requests[0].resource_spans[0].resource
    facts = {each.key: each.value for each in whole.attributes}
    about = {each.key: each.value.string_value for each in resource.attributes}

    assert facts.keys() == {"shelfrank.request_id", "shelfrank.documents", "shelfrank.degraded"}
    assert facts["shelfrank.documents"].int_value == 50
    assert (about["service.name"], about["service.version"]) == ("shelfrank", "1.2.3")


def test_the_callers_trace_is_continued(receiver: Receiver) -> None:
    """With a W3C traceparent the span has the caller's trace id and the caller's span as parent."""
    tracing = opened(receiver.url, sample=0.0)
    trace_id = record(tracing, f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    tracing.close()
    whole = next(span for span in receiver.spans if span.kind == SERVER)

    assert trace_id == TRACE == whole.trace_id.hex()
    assert whole.parent_span_id.hex() == PARENT
    assert whole.trace_state == "vendor=1"
    assert len(receiver.spans) == 1 + len(TIMES)


def test_a_caller_that_does_not_sample_is_not_traced(receiver: Receiver) -> None:
    """With the caller's flag off nothing is sent, whatever the ratio, but the trace id is known for the log."""
    tracing = opened(receiver.url, sample=1.0)
    trace_id = record(tracing, f"00-{TRACE}-{PARENT}-00")
    tracing.close()

    assert trace_id == TRACE
    assert receiver.spans == []


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        "x" * 4_000,
    ],
)
def test_a_bad_context_starts_a_new_trace(receiver: Receiver, traceparent: str) -> None:
    """Whatever a client sends as its context, the request is traced under a new id."""
    tracing = opened(receiver.url)
    trace_id = record(tracing, traceparent)
    tracing.close()

    assert trace_id != TRACE
    assert int(trace_id, 16) > 0
    assert len(receiver.spans) == 1 + len(TIMES)


def test_a_share_is_sampled(receiver: Receiver) -> None:
    """At a ratio of 0.2 about a fifth of the requests that come without a decision are sent, whole or not at all."""
    tracing = opened(receiver.url, sample=0.2)
    for _ in range(500):
        record(tracing)
    tracing.close()
    wholes = sum(span.kind == SERVER for span in receiver.spans)

    assert 50 < wholes < 160
    assert len(receiver.spans) == wholes * (1 + len(TIMES))


def test_without_a_receiver_nothing_is_lost_but_spans() -> None:
    """With nobody at the address, requests wait for nothing, spans are bounded, and the end comes soon."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1/traces"
    tracing = opened(url)
    began_s = time.monotonic()
    for _ in range(QUEUED_SPANS):
        record(tracing)
    tracing.close(SHORT_S)

    assert time.monotonic() - began_s < WAIT_S / 2


def test_a_receiver_that_hangs_holds_nobody_up(receiver: Receiver) -> None:
    """A receiver that takes the bytes and never answers delays neither requests nor, beyond a bound, the end."""
    receiver.gate.clear()
    tracing = opened(receiver.url)
    began_s = time.monotonic()
    for _ in range(QUEUED_SPANS):
        record(tracing)
    tracing.close(SHORT_S)

    assert time.monotonic() - began_s < WAIT_S / 2


def test_without_an_endpoint_nothing_is_loaded() -> None:
    """By default there is no tracing, and none of its libraries is imported."""
    source = (
        "import sys; from service.telemetry.tracing import open_tracing; from service.settings import Settings\n"
        "assert open_tracing(Settings(), '1') is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True
    )

    assert done.stdout.strip() == "[]"


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for traces without the extra is told what to install, before anything is served."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(SettingsError, match="extra otel"):
        open_tracing(Settings(otel_endpoint="http://127.0.0.1:4318/v1/traces"), "1")


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector", "http://", "http://a b", "http:// "])
def test_an_endpoint_is_a_url(url: str) -> None:
    """An address that no request can go to stops the boot."""
    with pytest.raises(ValueError, match="pattern"):
        Settings(otel_endpoint=url)


def test_stages_that_were_not_measured_are_left_out() -> None:
    """An answer from the cache has no stage between parsing and responding."""
    assert [name for name, _, _ in stage_spans(0.0, {"respond": 1.0, "parse": 1.0})] == ["parse", "respond"]


def test_a_ranked_request_can_be_found_by_its_id(receiver: Receiver, tiny_bundle: Path) -> None:
    """The span of a request that was ranked carries the id that its answer carries."""
    bench = fake_bench(tiny_bundle, FakeSession())
    told = Settings(cache_bytes=0)
    app = build_app(told, Versions(Version(bench.model)), bench.scorer, Metrics(), opened(receiver.url))
    with Served(app) as served:
        body = b'{"query":"red","documents":["red shoes"]}'
        answer = served.run(exchange(app, "POST", "/v1/rerank", body, JSON))
    (whole,) = [span for span in receiver.spans if span.kind == SERVER]

    assert answer.status == 200
    assert {"shelfrank.request_id": answer.headers["x-request-id"]}.items() <= {
        each.key: each.value.string_value for each in whole.attributes
    }.items()
