"""Starting, ready, draining: what the service tells a load balancer, and how it leaves.

Knows signals and uvicorn's server; does not know what is served.
Invariant: readiness turns red first, the listener closes later, requests in flight are answered, exit code 0.
"""

import os
import signal
import socket
import time
from enum import Enum
from types import FrameType
from typing import Final

import uvicorn

from service.logs import event

_FORCED_EXIT: Final = 128 + signal.SIGTERM


class State(Enum):
    """Where the service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """The state of one application; it only moves forward."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def started(self) -> None:
        """Note that the workers run."""
        if self.state is State.STARTING:
            self.state = State.READY

    def drain(self) -> None:
        """Note that the service is about to leave."""
        self.state = State.DRAINING


class DrainingServer(uvicorn.Server):
    """uvicorn, except that the first signal drains and the second one leaves at once."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_delay_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._leave_at_s = float("inf")
        self._is_announced = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                event("listening", url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  as in uvicorn
        """Drain; uvicorn's own handler would raise the signal again at the end, and so lose exit code 0.

        Nothing is written here: the signal may have interrupted the writing of a log line.
        """
        if self._lifecycle.state is State.DRAINING:
            os._exit(_FORCED_EXIT)
        self._lifecycle.drain()
        delay_s = self._drain_delay_s if sig == signal.SIGTERM else 0.0  # nobody balances load to a Ctrl-C
        self._leave_at_s = time.monotonic() + delay_s

    async def on_tick(self, counter: int) -> bool:
        """Say once that the service drains, and leave when the delay is over; called ten times a second."""
        if self._lifecycle.state is State.DRAINING and not self._is_announced:
            self._is_announced = True
            event("draining", requests=len(self.server_state.tasks))
        if time.monotonic() >= self._leave_at_s:
            self.should_exit = True
        return await super().on_tick(counter)
