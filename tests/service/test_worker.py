"""Tests of service/worker.py."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bundle.verify import Session
from service.worker import WorkerPool
from tests.service.support import WAIT_S, FakeSession


@dataclass
class Task:
    """A job that notes what happened to it."""

    order: tuple[int, int]
    done: list[tuple[int, int]]
    last: threading.Event
    is_wanted: bool = True
    raises: bool = False
    gate: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    failures: list[Exception] = field(default_factory=list)

    def wanted(self) -> bool:
        """Say what it was told to say."""
        return self.is_wanted

    def run(self, session: Session) -> None:  # noqa: ARG002 - a job that needs none
        """Begin, wait for the gate, then end or raise."""
        self.begun.set()
        if self.gate is not None:
            assert self.gate.wait(WAIT_S)
        if self.raises:
            raise RuntimeError("the job fails")
        self.done.append(self.order)
        if self.order == (9, 9):
            self.last.set()

    def fail(self, error: Exception) -> None:
        """Note the error."""
        self.failures.append(error)


@dataclass
class Bench:
    """A pool of one worker and what its jobs note."""

    pool: WorkerPool
    errors: list[Exception]
    drops: list[None]
    done: list[tuple[int, int]] = field(default_factory=list)
    last: threading.Event = field(default_factory=threading.Event)

    def task(self, *order: int, **options: object) -> Task:
        """Make a job that notes what happens here."""
        return Task((order[0], order[1]), self.done, self.last, **options)  # type: ignore[arg-type]

    def finish(self) -> None:
        """Queue the last job and wait until the worker is through."""
        self.pool.put([self.task(9, 9)])
        assert self.last.wait(WAIT_S)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A started pool of one worker."""
    errors: list[Exception] = []
    drops: list[None] = []
    pool = WorkerPool([FakeSession()], on_drop=lambda: drops.append(None), on_error=errors.append)
    pool.start()
    yield Bench(pool, errors, drops)
    pool.stop(WAIT_S)
    assert pool.alive == 0


def test_jobs_run_in_order_of_request_then_place(bench: Bench) -> None:
    """While the worker is busy jobs line up, the oldest request first, then by place."""
    gate = threading.Event()
    blocker = bench.task(0, 0, gate=gate)
    bench.pool.put([blocker])
    assert blocker.begun.wait(WAIT_S)
    bench.pool.put([bench.task(2, 1), bench.task(2, 2)])
    bench.pool.put([bench.task(1, 2), bench.task(1, 1)])
    bench.pool.put([bench.task(-1, 0)])
    gate.set()
    bench.finish()

    assert [(0, 0), (-1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (9, 9)] == bench.done


def test_an_unwanted_job_is_never_started(bench: Bench) -> None:
    """A job that nobody waits for is dropped when its turn comes, and counted."""
    unwanted = bench.task(1, 1, is_wanted=False)
    bench.pool.put([unwanted])
    bench.finish()

    assert not unwanted.begun.is_set()
    assert len(bench.drops) == 1


def test_a_thousand_failing_jobs_do_not_end_the_worker(bench: Bench) -> None:
    """Each failure is counted and told to its job, and the next job runs as ever."""
    failing = [bench.task(1, place, raises=True) for place in range(1_000)]
    bench.pool.put(failing)
    bench.finish()

    assert len(bench.errors) == 1_000
    assert all(len(task.failures) == 1 for task in failing)
    assert bench.pool.alive == bench.pool.size == 1


def test_stopping_ends_the_running_job_and_forgets_the_rest() -> None:
    """After `stop` the running job has finished, queued ones never start, and new ones are not taken."""
    pool = WorkerPool([FakeSession()], on_drop=lambda: None, on_error=lambda _: None)
    pool.start()
    bench = Bench(pool, [], [])
    gate = threading.Event()
    running, queued, late = bench.task(1, 1, gate=gate), bench.task(1, 2), bench.task(1, 3)
    pool.put([running])
    assert running.begun.wait(WAIT_S)
    pool.put([queued])
    stopping = threading.Thread(target=pool.stop, args=(WAIT_S,))
    stopping.start()
    gate.set()
    stopping.join(WAIT_S)
    pool.put([late])

    assert [(1, 1)] == bench.done
    assert pool.alive == 0


def test_two_workers_run_two_jobs_at_once() -> None:
    """Each session has a thread of its own."""
    pool = WorkerPool([FakeSession(), FakeSession()], on_drop=lambda: None, on_error=lambda _: None)
    pool.start()
    bench = Bench(pool, [], [])
    gate = threading.Event()
    tasks = [bench.task(1, place, gate=gate) for place in range(2)]
    pool.put(tasks)

    assert all(task.begun.wait(WAIT_S) for task in tasks)
    gate.set()
    pool.stop(WAIT_S)
