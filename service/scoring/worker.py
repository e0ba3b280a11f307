"""Threads that do what the scheduler hands out.

Knows threads, the clock and the scheduler's lock; does not know texts or the meaning of logits.
Invariant: a task whose result is no longer wanted is never started, and no task can end a thread.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from bundle.rows import Rows
from service.domain.budget import PRIORITIES
from service.engine.model import LoadedModel
from service.errors import Refused
from service.scoring.job import RankingJob, settle_on_loop
from service.scoring.queue_entry import WORTHWHILE_TOKENS, QueueEntry, Run, Tokenize
from service.scoring.scheduler import Scheduler

Result = TypeVar("Result")
_WAKE_S: Final = 1.0  # an idle worker looks around this often, so that no wait is without end


class FunctionJob(Generic[Result]):
    """A function that runs on a worker, beside the queue; a refusal is its normal outcome, not an error of the worker."""

    def __init__(self, function: Callable[[], Result], future: asyncio.Future[Result]) -> None:
        self._function = function
        self._future = future

    def wanted(self) -> bool:
        """Whether somebody still waits for the result."""
        return not self._future.done()

    def run(self) -> None:
        """Call the function and hand over its result."""
        try:
            result = self._function()
        except Refused as refusal:
            self.fail(refusal)
        else:
            settle_on_loop(self._future, lambda: self._future.set_result(result))

    def fail(self, error: Exception) -> None:
        """Hand over an error that `run` did not handle."""
        settle_on_loop(self._future, lambda: self._future.set_exception(error))


Task = Tokenize[RankingJob] | Run[RankingJob] | FunctionJob[Any]


class WorkerPool:
    """One thread for each session of a model; the queue holds what admission let in, so its bound is there."""

    def __init__(  # noqa: PLR0913  what the threads are, and their callbacks
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
        self._changed = threading.Condition()  # guards the six fields below
        self._scheduler = Scheduler[RankingJob](workers, weights, len(PRIORITIES), fill_tokens)
        self._first: deque[FunctionJob[Any] | Run[RankingJob]] = (
            deque()
        )  # jobs, and single rows of a run that failed
        self._observed_s = time.monotonic()
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
    def since_observed_s(self) -> float:
        """Seconds since it was last seen what a run costs."""
        return time.monotonic() - self._observed_s

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

    def submit(self, entry: QueueEntry[RankingJob]) -> None:
        """Queue a request; after `stop` it is forgotten."""
        with self._changed:
            self._scheduler.add(entry)
            self._changed.notify(entry.runs)

    def drop(self, entry: QueueEntry[RankingJob]) -> None:
        """Start nothing more of a request."""
        with self._changed:
            self._drop(entry)

    def _drop(self, entry: QueueEntry[RankingJob]) -> None:
        if not entry.is_over and entry.has_work:
            self._on_drop()
        self._scheduler.drop(entry)

    def offload(self, job: FunctionJob[Any]) -> None:
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
        """Do a task; False if there are no more."""
        if task is None:
            return False
        try:
            if isinstance(task, Run):
                self._compute(task, worker)
            elif isinstance(task, Tokenize):
                self._tokenize(task)
            elif task.wanted():
                task.run()
            else:
                self._on_drop()
        except Exception as error:  # noqa: BLE001  the worker's broad catch: counted, and handed to the request
            self._on_error(error)
            self._fail(task, error)
        return True

    def _next(self, worker: int) -> Task | None:
        with self._changed:
            self._busy_since[worker] = None
            while not self._closing:
                task: Task | None
                task = self._first.popleft() if self._first else self._scheduler.next(time.monotonic())
                if task is not None:
                    self._busy_since[worker] = time.monotonic()
                    return task
                self._changed.wait(_WAKE_S)
            return None

    def _tokenize(self, task: Tokenize[RankingJob]) -> None:
        lengths = task.entry.owner.tokenize()
        with self._changed:
            if lengths is None:
                self._drop(task.entry)
                self._scheduler.tokenization_failed(task.entry)
            else:
                self._scheduler.tokenized(task.entry, lengths)
                self._changed.notify_all()

    def _compute(self, run: Run[RankingJob], worker: int) -> None:
        """Compute a run, hand each request its logits, and learn what the run cost."""
        model = run.model
        assert isinstance(model, LoadedModel), "every entry is of a model"
        parts = [entry.owner.rows(positions) for entry, positions in run.parts]
        rows = parts[0] if len(parts) == 1 else Rows.joined(parts)
        began_s = time.monotonic()
        logits = model.compute(rows, run.length, worker)
        ended_s = time.monotonic()
        start = 0
        for entry, positions in run.parts:
            entry.owner.deliver(positions, logits[start : start + len(positions)])
            start += len(positions)
        with self._changed:
            self._scheduler.done(run)
            model.costs.observe(run.length * run.rows, run.rows, ended_s - began_s)
            self._observed_s = ended_s

    def _fail(self, task: Task, error: Exception) -> None:
        """Retry the rows of a failed run one by one, each once; what fails alone is reported to its request."""
        if isinstance(task, Run):
            with self._changed:
                self._scheduler.done(task)
                if task.rows > 1:
                    self._first.extend(self._scheduler.split_failed(task))
                    self._changed.notify_all()
                    return
            for entry, positions in task.parts:
                entry.owner.deliver(positions, None)
        elif isinstance(task, Tokenize):
            with self._changed:
                self._scheduler.tokenization_failed(task.entry)
            task.entry.owner.fail(error)
        else:
            task.fail(error)
