"""Looks after worker threads and the event loop: says when one hangs, and leaves if that is asked for.

Knows since when each thread has been at its task; does not know tasks, requests or health paths.
Invariant: the verdict is that of this moment, whether or not anything has been looked at before.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from service.process.lifecycle import WorkerHealth
from service.scoring.worker import WorkerPool
from service.telemetry.logs import event
from service.telemetry.metrics import Metrics

LOOK_EVERY_S: Final = 0.25
STOPPED_S: Final = 2.0  # after a pause of the whole process the clock says nothing about workers
_LAGS_KEPT: Final = 60  # at four looks a second, the last 15 s


def count_stuck(busy_since_s: Sequence[float | None], now_s: float, limit_s: float) -> int:
    """PURE. Count the threads that have been at one task for longer than the limit."""
    return sum(since_s is not None and now_s - since_s > limit_s for since_s in busy_since_s)


def check_workers(workers: WorkerPool, now_s: float, limit_s: float) -> WorkerHealth:
    """PURE. Say how the workers are; a stuck one weighs more than a dead one, as only a restart frees it."""
    if count_stuck(workers.busy_since(), now_s, limit_s):
        return WorkerHealth.STUCK
    return WorkerHealth.HEALTHY if workers.alive == workers.size else WorkerHealth.DEAD


class Watchdog:
    """Judges the workers whenever it is asked, and of itself a few times a second."""

    def __init__(
        self,
        workers: WorkerPool,
        limit_s: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._limit_s = limit_s
        self._clock = clock
        self._reported = WorkerHealth.HEALTHY
        self._lags_s: deque[float] = deque([0.0], maxlen=_LAGS_KEPT)
        metrics.loop_lag.set_function(lambda: max(self._lags_s))
        metrics.stuck_workers.set_function(
            lambda: count_stuck(self._workers.busy_since(), self._clock(), self._limit_s)
        )

    @property
    def worker_health(self) -> WorkerHealth:
        """How the workers are now."""
        return check_workers(self._workers, self._clock(), self._limit_s)

    async def watch(self, on_stuck: Callable[[], None]) -> None:
        """Watch for ever; log each change, and call `on_stuck` when a thread hangs."""
        while True:
            asked_s = self._clock()
            await asyncio.sleep(LOOK_EVERY_S)
            self.look(self._clock() - asked_s - LOOK_EVERY_S, on_stuck)

    def look(self, lag_s: float, on_stuck: Callable[[], None]) -> None:
        """Look once, so much later than was asked for."""
        self._lags_s.append(max(0.0, lag_s))
        worker_health = self.worker_health
        if worker_health is self._reported or lag_s > STOPPED_S:
            return
        self._reported = worker_health
        if worker_health is WorkerHealth.HEALTHY:
            event("workers_well")
            return
        event(worker_health.value, logging.ERROR, alive=self._workers.alive, size=self._workers.size)
        if worker_health is WorkerHealth.STUCK:
            on_stuck()
