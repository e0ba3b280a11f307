"""Starts rerankers as processes and asks them for lists, over a pipe or over HTTP.

Knows processes, their memory and their time; does not know what is compared, nor figures.
Invariant: what was started here is ended here with all its children, and a reranker that fails is named with its reason.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.peers.lists import Ask
from benchmarks.peers.roster import Dialect, Peer
from benchmarks.shared.load import Answer, Pool, run
from benchmarks.shared.target import REPOSITORY

RUNNERS: Final = Path(__file__).with_name("runners")
START_TIMEOUT_S: Final = 120.0
ASK_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
CONNECTIONS: Final = 32
_POLL_S: Final = 0.02
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class PeerError(Exception):
    """A reranker did not start, or did not answer."""


class Running(Protocol):
    """A reranker that is ready."""

    startup_s: float

    def ask(self, asks: Sequence[Ask]) -> list[tuple[float, list[float]]]:
        """Ask for one list after the other; return seconds and scores of each, PeerError if there are none."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What commands are filled with beside the port."""

    models: Path
    environments: Path
    bundle: str
    threads: int
    longest: int

    def fill(self, peer: Peer, port: int) -> list[str]:
        """Return the command of a peer."""
        python = sys.executable
        if peer.environment is not None:
            python = str(self.environments / peer.environment / "bin" / "python")
        places = {
            "python": python,
            "runners": RUNNERS,
            "models": self.models,
            "bundle": self.bundle,
            "threads": self.threads,
            "longest": self.longest,
            "port": port,
        }
        return [part.format(**places) for part in peer.command]


class Library:
    """A program that answers on a pipe and takes the time by itself."""

    def __init__(self, process: "subprocess.Popen[bytes]", *, as_fields: bool) -> None:
        """Wait until it is ready."""
        self._process = process
        self._as_fields = as_fields
        began_s = time.monotonic()
        self._read(START_TIMEOUT_S)
        self.startup_s = time.monotonic() - began_s

    def ask(self, asks: Sequence[Ask]) -> list[tuple[float, list[float]]]:
        """Return the seconds that the library took, without the pipe, and the scores."""
        return [self._ask(ask) for ask in asks]

    def _ask(self, ask: Ask) -> tuple[float, list[float]]:
        assert self._process.stdin is not None
        body = {"query": ask.query, "documents": ask.products if self._as_fields else ask.texts}
        try:
            self._process.stdin.write(json.dumps(body).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerError("it has ended") from error
        answer = json.loads(self._read(ASK_TIMEOUT_S))
        return answer["seconds"], answer["scores"]

    def _read(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise PeerError("it has ended, or took too long")
        return line


class Server:
    """A program that answers over HTTP, on one connection that is kept."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, dialect: Dialect, first: Ask) -> None:
        """Wait until it has answered a first request."""
        self.url = url
        self._dialect = dialect
        began_s = time.monotonic()
        while True:
            if process.poll() is not None:
                raise PeerError(f"it has ended with code {process.returncode}")
            with suppress(PeerError):
                self.ask([first])
                break
            if time.monotonic() - began_s > START_TIMEOUT_S:
                raise PeerError(f"it did not answer within {START_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)
        self.startup_s = time.monotonic() - began_s

    def payload(self, pool: Pool, ask: Ask) -> bytes:
        """Return the request for a list."""
        body = json.dumps(self._dialect.body(ask), ensure_ascii=False).encode()
        return pool.payload("POST", self._dialect.path, body)

    def ask(self, asks: Sequence[Ask]) -> list[tuple[float, list[float]]]:
        """Return the seconds from each request's first byte to its answer's last, and the scores."""

        async def send() -> list[Answer]:
            pool = Pool(self.url, 1, ASK_TIMEOUT_S)
            try:
                await pool.open()
                return [await pool.send(self.payload(pool, ask)) for ask in asks]
            finally:
                pool.close()

        try:
            answers = run(send)
        except OSError as error:
            raise PeerError("nothing listens") from error
        return [self._read(answer, ask) for answer, ask in zip(answers, asks, strict=True)]

    def _read(self, answer: Answer, ask: Ask) -> tuple[float, list[float]]:
        if answer.status != 200:
            raise PeerError(f"it answered with status {answer.status or 'none at all'}")
        try:
            scores = list(self._dialect.scores(json.loads(answer.body)))
        except (KeyError, TypeError, ValueError) as error:
            raise PeerError("its answer is not of the shape that it documents") from error
        if len(scores) != len(ask.texts):
            raise PeerError(f"it gave {len(scores)} scores for {len(ask.texts)} texts")
        return answer.done_s - answer.sent_s, scores


@contextmanager
def started(peer: Peer, machine: Machine, first: Ask, log: Path) -> Iterator[tuple[Running, int]]:
    """Start a peer and give it with its process id; PeerError, with what it last said, if it is not ready."""
    port = _free_port()
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own roster
            machine.fill(peer, port),
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if peer.dialect is None else errors,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield _wait(process, peer, f"http://127.0.0.1:{port}", first), process.pid
        except PeerError as error:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PeerError(f"{error}; {said[-1][:200] if said else 'it said nothing'}") from error
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", peer: Peer, url: str, first: Ask) -> Running:
    if peer.dialect is None:
        return Library(process, as_fields=peer.environment is None)
    return Server(process, url, peer.dialect, first)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the process, then whatever is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    for pid in _session(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def resident_mb(leader: int) -> float:
    """Return the resident memory of a process and its children, in 10^6 bytes; pages they share count for each."""
    pages = 0
    for pid in _session(leader):
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * _PAGE_BYTES / 1e6


def cpu_seconds(leader: int) -> float:
    """Return the processor time that a process and its children have taken."""
    return sum(sum(map(int, stat[11:13])) for stat in _session(leader).values()) / _TICKS_PER_S


def busy_seconds() -> float:
    """Return the processor time that anything on this machine has taken, and that its host has kept from it."""
    user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9])
    return (user + nice + system + sum(others)) / _TICKS_PER_S


def _session(leader: int) -> Mapping[int, Sequence[str]]:
    """Return what /proc/PID/stat says, from the state on, of every process in the session of one."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stat = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(stat[3]) == leader:
                found[int(path.parent.name)] = stat
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
