"""Threads that run jobs, each with its own session, from one queue.

Knows the order of jobs and whether they are still wanted; does not know what a job computes.
Invariant: a job that nobody wants is never started, and no job can end a thread.
"""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from bundle.verify import Session

_WAKE_S: Final = 1.0  # an idle worker looks around this often, so that no wait is without end


class Job(Protocol):
    """A piece of work; the smallest `order` runs first."""

    @property
    def order(self) -> tuple[int, int]:
        """Request number, then place within the request."""
        ...

    def wanted(self) -> bool:
        """Whether somebody still waits for the result."""
        ...

    def run(self, session: Session) -> None:
        """Do the work and hand over its result."""
        ...

    def fail(self, error: Exception) -> None:
        """Hand over an error that `run` did not handle."""
        ...


class WorkerPool:
    """One thread for each session; the queue holds what admission let in, so its bound is there."""

    def __init__(
        self,
        sessions: Sequence[Session],
        *,
        on_drop: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._on_drop = on_drop
        self._on_error = on_error
        self._changed = threading.Condition()  # guards the three fields below
        self._queue: list[tuple[tuple[int, int], int, Job]] = []
        self._ticket = itertools.count()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._loop, args=(session,), name=f"worker-{number}", daemon=True)
            for number, session in enumerate(sessions)
        ]

    @property
    def size(self) -> int:
        """Number of threads when all is well."""
        return len(self._threads)

    @property
    def alive(self) -> int:
        """Number of threads that run now."""
        return sum(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Let running jobs end, start no others, and wait for the threads."""
        with self._changed:
            self._closing = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def put(self, jobs: Iterable[Job]) -> None:
        """Queue jobs; after `stop` they are forgotten."""
        with self._changed:
            if self._closing:
                return
            added = 0
            for job in jobs:
                heapq.heappush(self._queue, (job.order, next(self._ticket), job))
                added += 1
            self._changed.notify(added)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait(_WAKE_S)
            return None if self._closing else heapq.heappop(self._queue)[2]

    def _loop(self, session: Session) -> None:
        while (job := self._next()) is not None:
            if not job.wanted():
                self._on_drop()
                continue
            try:
                job.run(session)
            except Exception as error:  # noqa: BLE001  the worker's broad catch: counted, and told to whoever waits
                self._on_error(error)
                job.fail(error)
