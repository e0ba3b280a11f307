"""Bounds the connections of a listener, and closes idle ones for new ones.

Knows whose turn it is on each connection, and since when; does not know sockets or requests.
Invariant: a new connection finds room as long as one of the others waits for its client.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from service.telemetry.logs import event
from service.telemetry.metrics import Metrics

_LOG_EVERY_S: Final = 10.0


class Connection(Protocol):
    """A connection that can be closed to make room."""

    def close_now(self) -> None:
        """Close at once."""
        ...


class ConnectionLimiter:
    """The connections of one listener, bounded by the descriptors there are, so that idle clients cannot take them all."""

    def __init__(self, most: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._metrics = metrics
        self._clock = clock
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the longest idle first
        self._logged_s = -_LOG_EVERY_S

    def add(self, connection: Connection) -> None:
        """Take a connection in; if there are too many, close the one idle for longest, or else this one."""
        self._connections.add(connection)
        if len(self._connections) > self._most:
            self._report()
            first = next(iter(self._idle), connection)
            self._idle.pop(first, None)
            first.close_now()
            if first is connection:
                return
        self.mark_idle(connection)

    def mark_idle(self, connection: Connection) -> None:
        """Note that it is the client's turn: from now on the connection may be closed for another."""
        self._idle.pop(connection, None)
        if connection in self._connections:
            self._idle[connection] = None

    def mark_busy(self, connection: Connection) -> None:
        """Note that the client waits for an answer."""
        self._idle.pop(connection, None)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that was closed."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    def _report(self) -> None:
        """Count a connection that was closed, and log that now and then."""
        self._metrics.shed_connections.inc()
        now_s = self._clock()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            event("connections_full", logging.WARNING, most=self._most)
