"""How many connections a listener may hold, and which of them gives way to a new one.

Knows whose turn it is on each connection, and since when; does not know sockets or requests.
Invariant: a new connection finds room as long as one of the others waits for its client.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from service.telemetry.logs import event
from service.telemetry.metrics import Metrics

_TOLD_EVERY_S: Final = 10.0


class Guest(Protocol):
    """A connection, as far as its place is concerned."""

    def give_way(self) -> None:
        """Close at once."""
        ...


class Room:
    """The places of one listener; they are as many as descriptors can be had, or idle clients would take them all."""

    def __init__(self, most: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._metrics = metrics
        self._clock = clock
        self._guests: set[Guest] = set()
        self._waiting: dict[Guest, None] = {}  # for their clients, the longest first
        self._told_s = -_TOLD_EVERY_S

    def enter(self, guest: Guest) -> None:
        """Take a place; if there is none, the one that has waited longest for its client gives way, or else the guest."""
        self._guests.add(guest)
        if len(self._guests) > self._most:
            self._tell()
            first = next(iter(self._waiting), guest)
            self._waiting.pop(first, None)
            first.give_way()
            if first is guest:
                return
        self.wait(guest)

    def wait(self, guest: Guest) -> None:
        """Note that from now on a connection waits for its client."""
        self._waiting.pop(guest, None)
        if guest in self._guests:
            self._waiting[guest] = None

    def serve(self, guest: Guest) -> None:
        """Note that the client waits for us."""
        self._waiting.pop(guest, None)

    def leave(self, guest: Guest) -> None:
        """Give a place back."""
        self._guests.discard(guest)
        self._waiting.pop(guest, None)

    def _tell(self) -> None:
        """Count, and say so now and then."""
        self._metrics.shed_connections.inc()
        now_s = self._clock()
        if now_s - self._told_s >= _TOLD_EVERY_S:
            self._told_s = now_s
            event("connections_full", logging.WARNING, most=self._most)
