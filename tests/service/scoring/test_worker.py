"""Tests of service/scoring/worker.py."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from service.domain.budget import DEFAULT_TENANT
from service.scoring.worker import WorkerPool
from tests.service.support import WAIT_S


@dataclass
class Work:
    """A job that notes what happened to it."""

    name: str
    done: list[str]
    is_wanted: bool = True
    raises: bool = False
    gate: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    failures: list[Exception] = field(default_factory=list)

    def wanted(self) -> bool:
        """Say what it was told to say."""
        return self.is_wanted

    def run(self) -> None:
        """Begin, wait for the gate, then end or raise."""
        self.begun.set()
        if self.gate is not None:
            assert self.gate.wait(WAIT_S)
        if self.raises:
            raise RuntimeError("the job fails")
        self.done.append(self.name)

    def fail(self, error: Exception) -> None:
        """Note the error."""
        self.failures.append(error)


@dataclass
class Shop:
    """A pool and what its jobs note."""

    pool: WorkerPool
    errors: list[Exception]
    drops: list[None]
    done: list[str] = field(default_factory=list)

    def work(self, name: str, *, raises: bool = False, gate: threading.Event | None = None) -> Work:
        """Make a job that notes what happens here."""
        return Work(name, self.done, raises=raises, gate=gate)

    def finish(self) -> None:
        """Queue a last job and wait until the worker is through."""
        last = self.work("last")
        self.pool.offload(last)
        assert last.begun.wait(WAIT_S)


def _shop(workers: int) -> Shop:
    errors: list[Exception] = []
    drops: list[None] = []
    pool = WorkerPool(
        workers, {DEFAULT_TENANT: 1.0}, on_drop=lambda: drops.append(None), on_error=errors.append
    )
    pool.start()
    return Shop(pool, errors, drops)


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A started pool of one worker."""
    shop = _shop(1)
    yield shop
    shop.pool.stop(WAIT_S)
    assert shop.pool.alive == 0


def test_an_unwanted_job_is_never_started(shop: Shop) -> None:
    """A job that nobody waits for is dropped when its turn comes, and counted."""
    unwanted = shop.work("unwanted")
    unwanted.is_wanted = False
    shop.pool.offload(unwanted)
    shop.finish()

    assert not unwanted.begun.is_set()
    assert len(shop.drops) == 1


def test_a_thousand_failing_jobs_do_not_end_the_worker(shop: Shop) -> None:
    """Each failure is counted and told to its job, and the next job runs as ever."""
    failing = [shop.work("failing", raises=True) for _ in range(1_000)]
    for work in failing:
        shop.pool.offload(work)
    shop.finish()

    assert len(shop.errors) == 1_000
    assert all(len(work.failures) == 1 for work in failing)
    assert shop.pool.alive == shop.pool.size == 1


def test_a_worker_tells_since_when_it_is_busy(shop: Shop) -> None:
    """While a job runs its worker has a time, and none when it is idle."""
    gate = threading.Event()
    work = shop.work("long", gate=gate)
    shop.pool.offload(work)
    assert work.begun.wait(WAIT_S)
    (since_s,) = shop.pool.busy_since()
    gate.set()
    shop.pool.stop(WAIT_S)

    assert since_s is not None
    assert [None] == shop.pool.busy_since()


def test_stopping_ends_the_running_job_and_forgets_the_rest() -> None:
    """After `stop` the running job has finished, and queued ones never start."""
    shop = _shop(1)
    gate = threading.Event()
    running, queued = shop.work("running", gate=gate), shop.work("queued")
    shop.pool.offload(running)
    assert running.begun.wait(WAIT_S)
    shop.pool.offload(queued)
    stopping = threading.Thread(target=shop.pool.stop, args=(WAIT_S,))
    stopping.start()
    while not shop.pool.is_closing:
        stopping.join(0.001)
    gate.set()
    stopping.join(WAIT_S)

    assert ["running"] == shop.done
    assert shop.pool.alive == 0


def test_two_workers_run_two_jobs_at_once() -> None:
    """Each worker has a thread of its own."""
    shop = _shop(2)
    gate = threading.Event()
    works = [shop.work("both", gate=gate) for _ in range(2)]
    for work in works:
        shop.pool.offload(work)

    assert all(work.begun.wait(WAIT_S) for work in works)
    gate.set()
    shop.pool.stop(WAIT_S)


def test_a_worker_stays_on_its_cpu() -> None:
    """A worker that was given a CPU runs there alone, one that was given none runs wherever it may."""
    allowed = os.sched_getaffinity(0)
    for cpus, expected in (((max(allowed),), {max(allowed)}), ((), allowed)):
        pool = WorkerPool(1, {DEFAULT_TENANT: 1.0}, on_drop=lambda: None, on_error=lambda _: None, cpus=cpus)
        before = set(threading.enumerate())  # other tests' applications have workers as well
        pool.start()
        (thread,) = set(threading.enumerate()) - before
        shop = Shop(pool, [], [])
        shop.finish()
        assert thread.native_id is not None
        assert os.sched_getaffinity(thread.native_id) == expected
        pool.stop(WAIT_S)
    assert os.sched_getaffinity(0) == allowed
