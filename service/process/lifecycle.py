"""Starting, ready, draining: what a load balancer sees of the service, and how it stops.

Knows signals and uvicorn's server; does not know what is served.
Invariant: readiness turns red first, the listener closes later, requests in flight are answered, exit code 0.
"""

import os
import signal
import socket
import time
from collections.abc import Callable
from enum import Enum
from types import FrameType
from typing import Final

import uvicorn

from service.telemetry.logs import event

FORCED_EXIT: Final = 128 + signal.SIGTERM
STUCK: Final = 4  # exit code after a worker thread hung


class State(Enum):
    """Where the service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class WorkerHealth(Enum):
    """How the workers are."""

    HEALTHY = "well"
    DEAD = "worker_dead"
    STUCK = "worker_stuck"


class Lifecycle:
    """The state of one application, which only moves forward, and the health that follows from it.

    `worker_health` returns how the workers are now.
    """

    def __init__(self, worker_health: Callable[[], WorkerHealth] = lambda: WorkerHealth.HEALTHY) -> None:
        self._worker_health = worker_health
        self.state = State.STARTING
        self.exit_code = 0

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.state is State.READY and self._worker_health() is WorkerHealth.HEALTHY

    @property
    def is_alive(self) -> bool:
        """Whether a restart would not help."""
        return self._worker_health() is not WorkerHealth.STUCK

    def started(self) -> None:
        """Note that the workers run."""
        if self.state is State.STARTING:
            self.state = State.READY

    def drain(self, exit_code: int = 0) -> None:
        """Note that the service is about to leave; the server that sees this does so, with this exit code."""
        self.state = State.DRAINING
        self.exit_code = self.exit_code or exit_code


class DrainingServer(uvicorn.Server):
    """uvicorn, except that the first signal drains and the second one leaves at once."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        drain_delay_s: float,
        *,
        admin_url: str = "",
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._admin_url = admin_url
        self._leave_at_s = float("inf")
        self._is_signalled = False
        self._is_announced = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                event("listening", url=url_of(listener), admin=self._admin_url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  as in uvicorn
        """Drain; uvicorn's own handler would raise the signal again at the end, and so lose exit code 0.

        Nothing is written here: the signal may have interrupted the writing of a log line.
        """
        if self._is_signalled:
            os._exit(FORCED_EXIT)
        delay_s = (
            self._drain_delay_s if sig == signal.SIGTERM else 0.0
        )  # a Ctrl-C comes without a load balancer
        self._is_signalled = True
        self._leave_at_s = min(self._leave_at_s, time.monotonic() + delay_s)
        self._lifecycle.drain()

    async def on_tick(self, counter: int) -> bool:
        """Say once that the service drains, and leave when the delay is over; called ten times a second."""
        if self._lifecycle.state is State.DRAINING and not self._is_announced:
            self._is_announced = True
            self._leave_at_s = min(self._leave_at_s, time.monotonic() + self._drain_delay_s)
            event("draining", requests=len(self.server_state.tasks))
        if time.monotonic() >= self._leave_at_s:
            self.should_exit = True
        return await super().on_tick(counter)


def url_of(listener: socket.socket) -> str:
    """Return where a socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
