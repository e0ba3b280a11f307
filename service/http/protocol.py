"""uvicorn's connection, with a deadline for receiving a request and for each step of sending its answer.

Knows bytes and when they arrived; does not know routes or JSON.
Invariant: a connection that owes us part of a request is closed when the deadline has passed, and so is one whose
client has stopped reading. What one request is, content-length or chunked says; no other header ends a body.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final, Literal

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.schema import error_body
from service.errors import Reason
from service.http.connections import ConnectionLimiter
from service.http.middleware import FIRST_BYTE
from service.settings import Settings
from service.telemetry.logs import event
from service.telemetry.metrics import Metrics

MAX_HEAD_BYTES: Final = 65_536
_HEADER_MARKS_BYTES: Final = 4  # a colon, a blank, and the end of the line
_CLOSE: Final = (b"connection", b"close")
_HOSTS: Final = {"1.1": (1,), "1.0": (0, 1)}  # how many Host headers there may be
_CHECKS: Final = 5  # how often within the time-out the progress of an answer is looked at


class _RefusedError(Exception):
    """Ends the parsing of a connection that was closed within a callback of the parser."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection of the service; `protocol_class` makes the class that a server uses."""

    receipt_timeout_s: ClassVar[float]
    send_timeout_s: ClassVar[float]
    metrics: ClassVar[Metrics]
    is_draining: ClassVar["staticmethod[[], bool]"]
    limiter: ClassVar[ConnectionLimiter]

    _stage: Literal["idle", "head", "body"] = "idle"
    _running: RequestResponseCycle | None = None
    _ignores_input = False
    _head_bytes = 0
    _began_s = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _check: asyncio.TimerHandle | None = None
    _unsent_bytes = 0
    _checks_without_progress = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the clock: a client that connects has something to say."""
        super().connection_made(transport)
        self._arm()
        self.limiter.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self.limiter.remove(self)
        self._disarm()
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def _mark_idle(self) -> None:
        """Mark the connection idle, unless an answer is on its way."""
        if self._running is None or self._running.response_complete:
            self.limiter.mark_idle(self)

    def close_now(self) -> None:
        """Close for another connection; what of an answer was not read is lost."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse headers without end; behind what was refused there is nothing."""
        if self._ignores_input:
            return
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if not isinstance(error.__context__, _RefusedError):
                self._stage = "head" if self._stage == "idle" else self._stage
                self._refuse(Reason.MALFORMED_HTTP)
            return
        self._head_bytes = self._head_bytes + len(data) if self._stage == "head" else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(Reason.HEADERS_TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        """Feed the parser; an upgrade is not taken, so its header is as good as absent (RFC 9110, 7.8).

        The parser stops behind the head of such a request, and would take its body for the next request.
        A new parser reads the same head without the header, and then what follows it.
        """
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Start the clock for a request; on a new connection it runs already."""
        super().on_message_begin()
        if self._stage != "head":  # else the same head is read again, without its upgrade
            self._began_s = time.monotonic()
        self.scope[FIRST_BYTE] = self._began_s  # type: ignore[typeddict-unknown-key]  # extensions are allowed
        self._stage = "head"
        if self._deadline is None:
            self._arm()
            self._mark_idle()

    def on_headers_complete(self) -> None:
        """Go on to the body, unless the head says too much or too little."""
        reason = self._fault()
        if reason is not None:
            self._refuse(reason)
            raise _RefusedError
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self._stage = "body"

    def _fault(self) -> Reason | None:
        """Return why a head is refused: another server might see another host, or other bounds of the body, in it."""
        size_bytes, hosts, codings = len(self.url), 0, []
        for name, value in self.headers:
            size_bytes += len(name) + len(value) + _HEADER_MARKS_BYTES
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings.append(value.lower())
        if size_bytes > MAX_HEAD_BYTES:
            return Reason.HEADERS_TOO_LARGE
        if self.parser.get_method() == b"CONNECT":  # behind which there is no HTTP
            return Reason.METHOD_NOT_ALLOWED
        if hosts not in _HOSTS.get(self.parser.get_http_version(), ()):
            return Reason.MALFORMED_HTTP
        return Reason.UNKNOWN_TRANSFER_CODING if codings not in ([], [b"chunked"]) else None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]  # ASGI's types as Starlette has them
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._answer, cycle, app))

    async def _answer(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Have the application answer, with `connection: close` if that is the last answer on this connection.

        It is while the service drains, and if it begins before the request's body has ended. Such a body is read on, to
        nothing: closing at once would reset the connection, and many a client would never see its answer.
        """

        async def send_closing(message: Message) -> None:
            is_early = cycle.more_body
            if message["type"] == "http.response.start":
                if is_early or self.is_draining():
                    message["headers"] = [*message.get("headers", ()), _CLOSE]
                await send(message)
                return
            is_last_word = is_early and not message.get("more_body", False)
            if is_last_word:
                # else uvicorn closes now; the end of the body does, or the deadline
                cycle.keep_alive = True
            await send(message)
            if is_last_word and not self.transport.is_closing():
                self.transport.write_eof()
                self._disarm()
                self._deadline = self.loop.call_later(self.receipt_timeout_s, self.transport.close)

        await app(scope, receive, send_closing)

    def on_message_complete(self) -> None:
        """Stop the clock; close if the answer was given before the body had arrived."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._stage = "idle"
        self._disarm()
        self.limiter.mark_busy(self)
        if self.cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Watch that the client reads its answer, which may still lie in our buffer."""
        super().on_response_complete()
        if (
            self._running is not None and self._running.response_complete
        ):  # and no other request has been begun
            self.limiter.mark_idle(self)
        if self._check is None:
            self._unsent_bytes = self._checks_without_progress = 0
            self._check_later()

    def shutdown(self) -> None:
        """Leave after the answer in progress; a request that is arriving gets one too."""
        if self._stage != "head":
            super().shutdown()

    def _check_later(self) -> None:
        self._check = self.loop.call_later(self.send_timeout_s / _CHECKS, self._check_progress)

    def _check_progress(self) -> None:
        """Cut the connection if nothing of the answer was read for the whole time-out."""
        self._check = None
        unsent_bytes = self.transport.get_write_buffer_size()
        if not unsent_bytes:
            return
        is_stuck = unsent_bytes == self._unsent_bytes
        self._checks_without_progress = self._checks_without_progress + 1 if is_stuck else 0
        self._unsent_bytes = unsent_bytes
        if self._checks_without_progress < _CHECKS:
            self._check_later()
            return
        self.metrics.slow_readers.inc()
        event("slow_reader", logging.WARNING, unsent_bytes=unsent_bytes)
        self.transport.abort()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.receipt_timeout_s, self._refuse, Reason.REQUEST_TIMEOUT)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, reason: Reason) -> None:
        """Close the connection, with an answer if the client waits for one and none is on its way."""
        self.metrics.rejected.labels(reason.code).inc()
        self._ignores_input = True
        before = self._request_before()
        if before is not None:
            before.keep_alive = False  # what came before is answered, then the connection ends
            self.cycle = before
            return
        if self._awaits_answer() and not self.transport.is_closing():
            body = error_body(reason, (), "")
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[reason.status] + head + body)
        self.transport.close()

    def _request_before(self) -> RequestResponseCycle | None:
        """Return the last request before the one that is refused, if it is still to be answered."""
        if self._stage == "body":
            if not self.pipeline:
                return None
            self.pipeline.popleft()  # the one that is refused
        last = self.pipeline[0][0] if self.pipeline else self._running
        return None if last is None or last.response_complete else last

    def _awaits_answer(self) -> bool:
        if self._stage == "idle":
            return False  # an answer on a silent connection would be taken for that of its first request
        return self._stage == "head" or not self.cycle.response_started


def protocol_class(
    settings: Settings, metrics: Metrics, is_draining: Callable[[], bool], limiter: ConnectionLimiter
) -> type[GuardedProtocol]:
    """Return the protocol class of one server; uvicorn makes the instances, so it takes no arguments."""
    of_server = {
        "receipt_timeout_s": settings.receipt_timeout_s,
        "send_timeout_s": settings.send_timeout_s,
        "metrics": metrics,
        "is_draining": staticmethod(is_draining),
        "limiter": limiter,
    }
    return type("Guarded", (GuardedProtocol,), of_server)
