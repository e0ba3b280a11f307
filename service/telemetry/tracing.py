"""Traces of requests, made after the fact from the times that were measured anyway, and sent over OTLP.

Knows spans, W3C context and the exporter; does not know handlers, texts or what a stage does.
Invariant: nothing waits for the receiver of traces, spans beyond a bound are dropped, and no span holds a client's text.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from service.settings import Settings, SettingsError
from service.telemetry.meters import STAGES

if TYPE_CHECKING:  # the libraries of the extra `otel` are loaded where traces are asked for, and nowhere else
    from opentelemetry.sdk.trace import TracerProvider

QUEUED_SPANS: Final = 2_048
BATCH_SPANS: Final = 512
SEND_EVERY_S: Final = 2.0
SEND_TIMEOUT_S: Final = 2.0
"""Time in which a batch is delivered, retries included; as long does the end of the process wait for what is left."""

PREFIX: Final = "shelfrank."
Fact = str | int | float | bool
Span = tuple[str, float, float]
"""A name, a start and an end, the latter two in monotonic seconds."""


def open_tracing(settings: Settings, version: str) -> "Tracing | None":
    """Return what the settings ask for, or None; SettingsError if its libraries are not installed."""
    if not settings.otel_endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  see above
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
    except ImportError:
        raise SettingsError("otel_endpoint needs the libraries of the extra otel: shelfrank[otel]") from None
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.otel_sample)),
        resource=Resource.create({"service.name": "shelfrank", "service.version": version}),
        shutdown_on_exit=False,  # `close` does it
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(endpoint=settings.otel_endpoint, timeout=SEND_TIMEOUT_S),
            max_queue_size=QUEUED_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=SEND_EVERY_S * 1_000,
        )
    )
    return Tracing(provider)


class Tracing:
    """Records requests as spans; opened by `open_tracing`."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._tracer = provider.get_tracer("shelfrank")
        self._extract = TraceContextTextMapPropagator().extract
        self._server = SpanKind.SERVER
        self._under = set_span_in_context

    def record(
        self, headers: Mapping[str, str], whole: Span, stages: Iterable[Span], facts: Mapping[str, Fact]
    ) -> str:
        """Record a request with its stages and return its trace id, 32 hex digits.

        A `traceparent` among the headers is continued, and its sampling decision kept. `facts` are ids, words of
        closed sets and counts; they become attributes under `PREFIX`. This takes 0.1 ms if the request is sampled, else
        10 us.
        """
        offset_ns = time.time_ns() - time.monotonic_ns()  # taken each time, as the wall clock may be set
        context = self._extract({name: headers[name] for name in _CONTEXT if name in headers})
        name, began_s, ended_s = whole
        span = self._tracer.start_span(
            name, context, kind=self._server, start_time=_nanoseconds(began_s, offset_ns)
        )
        if span.is_recording():
            span.set_attributes({PREFIX + fact: value for fact, value in facts.items()})
            inside = self._under(span, context)
            for stage, from_s, to_s in stages:
                child = self._tracer.start_span(stage, inside, start_time=_nanoseconds(from_s, offset_ns))
                child.end(_nanoseconds(to_s, offset_ns))
        span.end(_nanoseconds(ended_s, offset_ns))
        return f"{span.get_span_context().trace_id:032x}"

    def close(self, timeout_s: float = SEND_TIMEOUT_S) -> None:
        """Send what is left, as far as the receiver takes it in time; blocks for so long at most."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(timeout_s)


def stage_spans(began_s: float, times_s: Mapping[str, float]) -> list[Span]:
    """PURE. Lay the stages of a request one after the other, in the order of `STAGES`.

    The waits before and after tokenizing are one stage, `queue`, which comes first here.

    >>> stage_spans(10.0, {"infer": 2.0, "queue": 0.5, "total": 3.0})
    [('queue', 10.0, 10.5), ('infer', 10.5, 12.5)]
    """
    spans = []
    for stage in STAGES[:-1]:
        if stage in times_s:
            ended_s = began_s + times_s[stage]
            spans.append((stage, began_s, ended_s))
            began_s = ended_s
    return spans


_CONTEXT: Final = ("traceparent", "tracestate")


def _nanoseconds(monotonic_s: float, offset_ns: int) -> int:
    return int(monotonic_s * 1e9) + offset_ns
