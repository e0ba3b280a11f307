"""uvicorn's connection, with a deadline for receiving a request and a bound on its headers.

Knows bytes and when they arrived; does not know routes or JSON.
Invariant: a connection that owes us part of a request is closed when the deadline has passed.
"""

import asyncio
from typing import ClassVar, Final, Literal

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.errors import Reason
from service.metrics import Metrics

MAX_HEAD_BYTES: Final = 65_536


class GuardedProtocol(HttpToolsProtocol):
    """A connection of the service; `guarded` makes the class that a server uses."""

    receipt_timeout_s: ClassVar[float]
    metrics: ClassVar[Metrics]

    _stage: Literal["idle", "head", "body"] = "idle"
    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the clock: a client that connects has something to say."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse headers without end."""
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._stage == "head" else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(Reason.HEADERS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Start the clock for a request; on a new connection it runs already."""
        super().on_message_begin()
        self._stage = "head"
        if self._deadline is None:
            self._arm()

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        super().on_headers_complete()
        self._stage = "body"

    def on_message_complete(self) -> None:
        """Stop the clock; close if the answer was given before the body had arrived."""
        super().on_message_complete()
        self._stage = "idle"
        self._disarm()
        if self.cycle.response_complete:
            self.transport.close()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.receipt_timeout_s, self._refuse, Reason.REQUEST_TIMEOUT)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, reason: Reason) -> None:
        """Close the connection, with an answer if the client waits for one and none is on its way."""
        self.metrics.rejected.labels(reason.code).inc()
        if self._awaits_answer() and not self.transport.is_closing():
            body = msgspec.json.encode({"error": reason.code, "message": reason.message, "loc": [], "id": ""})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[reason.status] + head + body)
        self.transport.close()

    def _awaits_answer(self) -> bool:
        if self._stage == "idle" or self.pipeline:
            return False  # an answer on a silent connection would be taken for that of its first request
        if self._stage == "head":
            before: RequestResponseCycle | None = self.cycle  # uvicorn declares it as always there
            return before is None or before.response_complete
        return not self.cycle.response_started


def guarded(receipt_timeout_s: float, metrics: Metrics) -> type[GuardedProtocol]:
    """Return the protocol class of one server; uvicorn makes the instances, so it takes no arguments."""
    return type("Guarded", (GuardedProtocol,), {"receipt_timeout_s": receipt_timeout_s, "metrics": metrics})
