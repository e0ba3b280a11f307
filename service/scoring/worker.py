"""Threads that do what the scheduler hands out.

Knows threads, the clock and the scheduler's lock; does not know texts, logits' meaning or the event loop.
Invariant: a task that nobody wants is never started, and no task can end a thread.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.rows import Rows
from service.domain.budget import PRIORITIES
from service.engine.model import ServedModel
from service.scoring.entry import WORTHWHILE_TOKENS, Entry, Run, Tokenize
from service.scoring.scheduler import Scheduler

_WAKE_S: Final = 1.0  # an idle worker looks around this often, so that no wait is without end
_SOON_S: Final = 0.001
"""After so long without work a worker learns what its last run cost: the event loop, which has to answer with that
run's scores, would wait for the interpreter meanwhile."""


class Owner(Protocol):
    """What a request is to the workers; its methods are called on their threads."""

    def tokenize(self) -> Sequence[int] | None:
        """Turn the texts into rows and return their padded lengths; None if nobody waits for them any more."""
        ...

    def rows(self, places: Sequence[int]) -> Rows:
        """Return rows that are about to be computed."""
        ...

    def deliver(self, places: Sequence[int], logits: NDArray[np.float32] | None) -> None:
        """Take the logits of some rows, or None if the engine failed on them."""
        ...

    def fail(self, error: Exception) -> None:
        """Take an error that ends the request."""
        ...


class Job(Protocol):
    """A short piece of work beside the queue, which a whole request waits for."""

    def wanted(self) -> bool:
        """Whether somebody still waits for the result."""
        ...

    def run(self) -> None:
        """Do the work and hand over its result."""
        ...

    def fail(self, error: Exception) -> None:
        """Hand over an error that `run` did not handle."""
        ...


Task = Tokenize[Owner] | Run[Owner] | Job


class WorkerPool:
    """One thread for each session of a model; the queue holds what admission let in, so its bound is there."""

    def __init__(  # noqa: PLR0913  what the threads are, and whom they tell
        self,
        workers: int,
        weights: Mapping[str, float],
        *,
        on_drop: Callable[[], None],
        on_error: Callable[[Exception], None],
        fill_tokens: int = WORTHWHILE_TOKENS,
        cpus: Sequence[int] = (),
    ) -> None:
        """Make the threads, each for a CPU of its own if `cpus` names one for each."""
        self._cpus = cpus
        self._on_drop = on_drop
        self._on_error = on_error
        self._changed = threading.Condition()  # guards the seven fields below
        self._scheduler = Scheduler[Owner](workers, weights, len(PRIORITIES), fill_tokens)
        self._first: deque[Job | Run[Owner]] = deque()  # jobs, and single rows of a run that failed
        self._unlearnt: deque[_Delivery] = deque()
        self._learnt_s = time.monotonic()
        self._closing = False
        self._busy_since: list[float | None] = [None] * workers
        self._threads = [
            threading.Thread(target=self._loop, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]

    @property
    def size(self) -> int:
        """Number of threads when all is well."""
        return len(self._threads)

    @property
    def alive(self) -> int:
        """Number of threads that run now."""
        return sum(thread.is_alive() for thread in self._threads)

    @property
    def is_closing(self) -> bool:
        """Whether no more tasks are started."""
        return self._closing

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until all that is queued now is done."""
        with self._changed:
            return self._scheduler.backlog_s

    @property
    def learnt_since_s(self) -> float:
        """Seconds since it was last seen what a run costs."""
        return time.monotonic() - self._learnt_s

    def busy_since(self) -> list[float | None]:
        """Return for each thread since when it has been at its task, in monotonic seconds, None if idle."""
        with self._changed:
            return list(self._busy_since)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Let running tasks end, start no others, and wait for the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def finish_s(self, level: int, tenant: str, cost_s: float) -> float:
        """Predict after how many seconds a new request of that cost would be done."""
        with self._changed:
            return self._scheduler.finish_s(level, tenant, cost_s)

    def submit(self, entry: Entry[Owner]) -> None:
        """Queue a request; after `stop` it is forgotten."""
        with self._changed:
            self._scheduler.add(entry)
            self._changed.notify(entry.runs)

    def drop(self, entry: Entry[Owner]) -> None:
        """Start nothing more of a request."""
        with self._changed:
            self._drop(entry)

    def _drop(self, entry: Entry[Owner]) -> None:
        if not entry.is_over and entry.has_work:
            self._on_drop()
        self._scheduler.drop(entry)

    def offload(self, job: Job) -> None:
        """Do a job before anything that is queued."""
        with self._changed:
            self._first.append(job)
            self._changed.notify()

    def _loop(self, worker: int) -> None:
        if self._cpus:
            os.sched_setaffinity(0, {self._cpus[worker]})  # of this thread
        while self._work(self._next(worker), worker):
            pass  # nothing is held on to while it waits, least of all a model that was replaced meanwhile

    def _work(self, task: Task | None, worker: int) -> bool:
        """Do a task and all that follows from it; False if there are no more."""
        if task is None:
            return False
        following: Task | None = task
        while following is not None:
            task = following
            try:
                following = self._do(task, worker)
            except Exception as error:  # noqa: BLE001  the worker's broad catch: counted, and told to whoever waits
                self._on_error(error)
                self._fail(task, error)
                following = None
        return True

    def _next(self, worker: int) -> Task | None:
        with self._changed:
            self._busy_since[worker] = None
            while not self._closing:
                task: Task | None
                task = self._first.popleft() if self._first else self._scheduler.next(time.monotonic())
                if task is not None:
                    self._learn()
                    self._busy_since[worker] = time.monotonic()
                    return task
                if not self._changed.wait(_SOON_S if self._unlearnt else _WAKE_S):
                    self._learn()
            return None

    def _do(self, task: Task, worker: int) -> Task | None:
        """Do a task; return what follows from it."""
        if isinstance(task, Run):
            return self._compute(task, worker)
        if isinstance(task, Tokenize):
            lengths = task.entry.owner.tokenize()
            with self._changed:
                if lengths is None:
                    self._drop(task.entry)
                    self._scheduler.untokenized(task.entry)
                else:
                    self._scheduler.tokenized(task.entry, lengths)
                    self._changed.notify_all()
        elif isinstance(task, _Delivery):
            try:
                task.run()
            finally:
                with self._changed:
                    self._scheduler.done(task.of)
                    self._unlearnt.append(task)
        elif task.wanted():
            task.run()
        else:
            self._on_drop()
        return None

    def _compute(self, run: Run[Owner], worker: int) -> "_Delivery":
        model = run.model
        assert isinstance(model, ServedModel), "every entry is of a model"
        parts = [entry.owner.rows(places) for entry, places in run.parts]
        rows = parts[0] if len(parts) == 1 else Rows.joined(parts)
        began_s = time.monotonic()
        logits = model.compute(rows, run.length, worker)
        return _Delivery(run, logits, time.monotonic() - began_s)

    def _learn(self) -> None:
        """Note what runs have cost that were delivered meanwhile."""
        while self._unlearnt:
            self._learnt_s = time.monotonic()
            delivery = self._unlearnt.popleft()
            model, run = delivery.of.model, delivery.of
            assert isinstance(model, ServedModel), "every entry is of a model"
            model.costs.observe(run.length * run.rows, run.rows, delivery.took_s)

    def _fail(self, task: Task, error: Exception) -> None:
        """Try the rows of a failed run one by one, each once; what fails alone is told to whoever waits."""
        if isinstance(task, Run):
            with self._changed:
                self._scheduler.done(task)
                if task.rows > 1:
                    self._first.extend(self._scheduler.one_by_one(task))
                    self._changed.notify_all()
                    return
            for entry, places in task.parts:
                entry.owner.deliver(places, None)
        elif isinstance(task, Tokenize):
            with self._changed:
                self._scheduler.untokenized(task.entry)
            task.entry.owner.fail(error)
        else:
            task.fail(error)


class _Delivery:
    """Gives the logits of a run, float32 [rows], to those whose rows they are."""

    def __init__(self, run: Run[Owner], logits: NDArray[np.float32], took_s: float) -> None:
        self.of = run
        self.took_s = took_s
        self._logits = logits

    def wanted(self) -> bool:
        return True

    def run(self) -> None:
        start = 0
        for entry, places in self.of.parts:
            entry.owner.deliver(places, self._logits[start : start + len(places)])
            start += len(places)

    def fail(self, error: Exception) -> None:
        for entry, _ in self.of.parts:
            entry.owner.fail(error)
