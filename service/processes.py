"""Several serving processes behind one pair of ports: starts, watches, replaces and stops them.

Knows processes, signals and the private admin listener of each; does not know what they serve.
Invariant: nobody is refused while one process is ready, as all accept from one queue and a new one does so when warm.

The parent holds the public socket and accepts nothing from it. Each process has an admin listener of its own on
loopback, by which the parent sees how it is; the parent's own admin listener answers for all of them.
"""

import asyncio
import contextlib
import http.client
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from typing import Final

from prometheus_client.metrics_core import Metric
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.app.admin import build_admin
from service.app.rollout import PASSED_ON
from service.errors import Reason, Refused
from service.http.guard import read_body
from service.http.middleware import JsonResponse
from service.http.protocol import guarded
from service.http.room import Room
from service.process.cpus import usable_cpus
from service.process.descriptors import ADMIN_CONNECTIONS
from service.process.lifecycle import FORCED_EXIT, url_of
from service.server import BOOT_FAILED, SideServer, bind, serve, server_config
from service.settings import Settings
from service.telemetry.aggregate import add_up, lasting, read_metrics, write_metrics
from service.telemetry.logs import configure_logs, event
from service.telemetry.metrics import Metrics

FAILED: Final = 1
LOOK_EVERY_S: Final = 1.0
LOOK_SOON_S: Final = 0.1  # at a process that is starting
ASK_TIMEOUT_S: Final = 1.0
ADMIN_TIMEOUT_S: Final = 120.0  # an admin call may load a bundle
ADMIN_BODY_BYTES: Final = 65_536
START_WITHIN_S: Final = 300.0
STEADY_S: Final = 30.0  # a process that lived this long did not fail at its start
LONGEST_PAUSE_S: Final = 15.0
END_S: Final = 8.0  # what an end may take besides the drain's own delay and time-out

_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would copy the parent's event loop and threads


def pause_s(failures: int) -> float:
    """PURE. Return how long to wait before another start: ever longer while starts fail, up to a bound."""
    return min(0.25 * 2.0 ** min(failures, 10), LONGEST_PAUSE_S) if failures else 0.0


def child_settings(settings: Settings, cpus: int) -> Settings:
    """PURE. Return the settings of each process: of workers that are counted by CPUs it has its share."""
    if settings.workers or settings.device != "cpu":
        return settings
    return settings.model_copy(update={"workers": max(1, cpus // settings.processes)})


@dataclass(frozen=True, slots=True)
class Call:
    """What a process is asked."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    timeout_s: float = ASK_TIMEOUT_S


READY: Final = Call("GET", "/readyz")
METRICS: Final = Call("GET", "/metrics")


class Slot:
    """The place of one process, whichever has it at the moment, and what is known of it."""

    def __init__(self) -> None:
        self.admin = bind("127.0.0.1", 0)
        self.port: int = self.admin.getsockname()[1]
        self.process: SpawnProcess | None = None
        self.is_ready = False
        self.heard_s = 0.0  # when it last answered
        self.counted = b""  # its metrics as it last told them


class Fleet:
    """The processes, and what the parent answers for them."""

    def __init__(self, settings: Settings, public: socket.socket, admin: socket.socket) -> None:
        self._settings = settings
        self._public = public
        self._admin = admin
        self._metrics = Metrics()
        self._slots = [Slot() for _ in range(settings.processes)]
        self._gone: list[Metric] = []  # what was counted by processes that have ended
        self._served = asyncio.Event()
        self._leave = asyncio.Event()
        self._exit_code = 0

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here: one process that takes them is enough."""
        return not self._leave.is_set() and any(slot.is_ready for slot in self._slots)

    @property
    def is_alive(self) -> bool:
        """Whether a restart would not help: a process that hangs is replaced from here."""
        return True

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        routes = [Route("/admin/{call:path}", self._pass_on, methods=["GET", "POST", "DELETE"])]
        app = build_admin(self, self._metrics, self._scrape, routes)
        room = Room(ADMIN_CONNECTIONS, self._metrics)
        protocol = guarded(self._settings, self._metrics, self._leave.is_set, room)
        config = server_config(app, self._settings, protocol, lifespan=False)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(self._run(SideServer(config)))
        event("stopped")
        return self._exit_code

    async def _run(self, side: SideServer) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2 * len(self._slots) + 2, "ask"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._tell, signal.SIGHUP)
        beside = asyncio.create_task(side.serve(sockets=[self._admin]))
        keepers = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        await self._leave.wait()
        limit_s = self._settings.drain_delay_s + self._settings.drain_timeout_s + END_S
        _, late = await asyncio.wait(keepers, timeout=limit_s)
        if late:
            self._exit_code = self._exit_code or FAILED
            self._tell(signal.SIGKILL)
            await asyncio.wait(late, timeout=END_S)
        side.should_exit = True
        await beside

    def _stop(self, number: int) -> None:
        """Have all processes drain; told a second time, end at once."""
        if self._leave.is_set():
            self._tell(signal.SIGKILL)
            os._exit(FORCED_EXIT)
        event("draining", processes=sum(slot.process is not None for slot in self._slots))
        self._leave.set()
        self._served.set()
        self._public.close()  # the processes have it still, until their drain closes it
        self._tell(number)

    def _tell(self, number: int) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.pid is not None:
                os.kill(slot.process.pid, number)  # it is not reaped yet, so the id is its own

    async def _keep(self, slot: Slot) -> None:
        """Keep one place filled until the end; all but the first wait until a first start has succeeded."""
        if slot is not self._slots[0]:
            await self._served.wait()
        failures = 0
        while not self._leave.is_set():
            began_s = time.monotonic()
            code = await self._fill(slot)
            if self._leave.is_set():
                if code not in {
                    0,
                    -signal.SIGTERM,
                    -signal.SIGINT,
                }:  # those two: told to leave while it started
                    self._exit_code = FAILED
                return
            if code == BOOT_FAILED and not self._served.is_set():
                self._exit_code = BOOT_FAILED
                self._leave.set()
                self._served.set()
                return
            self._metrics.process_restarts.inc()
            event("process_ended", logging.ERROR, code=code)
            failures = 0 if time.monotonic() - began_s > STEADY_S else failures + 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leave.wait(), pause_s(failures))

    async def _fill(self, slot: Slot) -> int | None:
        """Run a process from its start to its end, and return its exit code."""
        settings = child_settings(self._settings, usable_cpus())
        process = _SPAWN.Process(target=_serve_as_child, args=(settings, self._public, slot.admin))
        process.start()
        slot.process, slot.heard_s = process, time.monotonic() + START_WITHIN_S
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(process.sentinel, ended.set)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), LOOK_EVERY_S if slot.is_ready else LOOK_SOON_S)
            if not ended.is_set():
                await self._look(slot, process)
        loop.remove_reader(process.sentinel)
        process.join()
        self._gone = add_up([self._gone, lasting(read_metrics(slot.counted))])
        slot.process, slot.is_ready, slot.counted = None, False, b""
        return process.exitcode

    async def _look(self, slot: Slot, process: SpawnProcess) -> None:
        """See how a process is; one that has said nothing for too long is ended, and so replaced."""
        answer = await _ask(slot.port, READY)
        if answer is not None:
            slot.heard_s = time.monotonic()
            await self._listen(slot)
        elif time.monotonic() - slot.heard_s > self._settings.watchdog_s and not self._leave.is_set():
            event("process_hangs", logging.ERROR, pid=process.pid)
            process.kill()
        slot.is_ready = answer is not None and answer[0] == 200
        if slot.is_ready and not self._served.is_set():
            self._served.set()
            event("listening", url=url_of(self._public), admin=url_of(self._admin))

    async def _listen(self, slot: Slot) -> None:
        """Note what a process has counted."""
        process = slot.process
        answer = await _ask(slot.port, METRICS)
        if answer is not None and answer[0] == 200 and slot.process is process is not None:
            slot.counted = answer[1]

    async def _scrape(self) -> bytes:
        """Write the metrics of all processes, present and gone, as those of one."""
        await asyncio.gather(*(self._listen(slot) for slot in self._slots if slot.process is not None))
        parts = [read_metrics(slot.counted) for slot in self._slots]
        return write_metrics(add_up([*parts, self._gone, lasting(self._metrics.registry.collect())]))

    async def _pass_on(self, request: Request) -> Response:
        """Hand an admin call to every process; of their answers the worst counts."""
        given: list[tuple[bytes, bytes]] = request.scope["headers"]
        body = await read_body(given, request.receive, ADMIN_BODY_BYTES, typed=False)
        call = Call(
            request.method,
            str(request.scope["raw_path"], "ascii"),
            tuple(header for header in given if header[0] in PASSED_ON),
            body,
            ADMIN_TIMEOUT_S,
        )
        ports = [slot.port for slot in self._slots if slot.process is not None]
        answers = await asyncio.gather(*(_ask(port, call) for port in ports))
        told = [answer for answer in answers if answer is not None]
        if not told or len(told) < len(answers):
            raise Refused(Reason.NOT_READY)
        status, content = max(told, key=lambda answer: answer[0])
        return JsonResponse(content, status_code=status)


async def _ask(port: int, call: Call) -> tuple[int, bytes] | None:
    """Ask one process; return status and body, or None if it does not answer."""

    def ask() -> tuple[int, bytes] | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=call.timeout_s)
        try:
            connection.putrequest(call.method, call.path, skip_accept_encoding=True)
            for name, value in call.headers:
                connection.putheader(str(name, "ascii"), value)
            connection.putheader("content-length", str(len(call.body)))
            connection.endheaders(call.body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


def _serve_as_child(settings: Settings, public: socket.socket, admin: socket.socket) -> None:
    """Be one of the processes; until it serves, a signal to leave ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves there is nothing to reload
    configure_logs(settings.log_format, settings.log_level)
    parent = multiprocessing.parent_process()
    assert parent is not None
    code = serve(settings, public, admin, parent=parent.sentinel)
    logging.shutdown()  # such a process ends without what the interpreter does at its exit
    sys.exit(code)
