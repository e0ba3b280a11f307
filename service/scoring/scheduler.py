"""PURE. Decides what a free worker does next, of all requests that wait.

Knows lengths, costs, deadlines, priorities and tenants; does not know time, threads, texts or the engine.
Invariant: a row is handed out at most once and never past its deadline, and a worker is never left idle while one waits.

Levels of priority come strictly one after another. Within a level the tenants share by weight (start-time fair
queueing: each has a virtual clock that its work moves on, and the one that is furthest behind is next), and a tenant's
requests come in their order. Rows are computed in runs of one padded length. A run that would be too short to be worth
its fixed cost is filled up with rows of that length from requests further back.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic

from service.scoring.queue_entry import WORTHWHILE_TOKENS, Owner, QueueEntry, Run, Tokenize

MAX_RUN_TOKENS: Final = 16_384  # bounds the memory of one run
LOOK_BACK: Final = 32  # requests that are looked through for rows to fill a run with
_ROUNDING_S: Final = 1e-9
TOKENIZE_SHARE: Final = 1 / 32  # of a request's cost, which is what tokenizing moves its tenant's clock on


@dataclass(slots=True)
class _TenantQueue(Generic[Owner]):
    """The requests of one tenant at one level, and how far its virtual clock is."""

    weight: float
    clock_s: float = 0.0
    cost_s: float = 0.0
    incoming: deque[QueueEntry[Owner]] = field(default_factory=deque)
    ready: deque[QueueEntry[Owner]] = field(default_factory=deque)
    tokenizing: int = 0  # requests that are being tokenized

    @property
    def is_busy(self) -> bool:
        return bool(self.incoming or self.ready or self.tokenizing)


class Scheduler(Generic[Owner]):
    """The queue of all requests; `weights` are those of the tenants, `levels` counts the priorities.

    Runs of fewer than `fill_tokens` are filled up; a GPU wants far more of them than a core.
    """

    def __init__(
        self, workers: int, weights: Mapping[str, float], levels: int, fill_tokens: int = WORTHWHILE_TOKENS
    ) -> None:
        self._workers = workers
        self._fill_tokens = fill_tokens
        self._most = max(MAX_RUN_TOKENS, fill_tokens)
        self._levels = [
            {name: _TenantQueue[Owner](weight) for name, weight in weights.items()} for _ in range(levels)
        ]
        self._running_s = 0.0

    def add(self, entry: QueueEntry[Owner]) -> None:
        """Queue a request."""
        queues = self._levels[entry.level]
        queue = queues[entry.tenant]
        if not queue.is_busy:  # a tenant gains no credit while it is idle
            busy = [other.clock_s for other in queues.values() if other.is_busy]
            queue.clock_s = max(queue.clock_s, min(busy, default=0.0))
        queue.incoming.append(entry)
        queue.cost_s += entry.cost_s

    def tokenized(self, entry: QueueEntry[Owner], lengths: Sequence[int]) -> None:
        """Queue the rows of a request that `next` had tokenized; their padded lengths in the order of its rows."""
        queue = self._queue_of(entry)
        queue.tokenizing -= 1
        if entry.is_over:
            return
        before_s = entry.cost_s
        entry.set_rows(lengths)
        queue.cost_s += entry.cost_s - before_s
        queue.ready.append(entry)

    def tokenization_failed(self, entry: QueueEntry[Owner]) -> None:
        """Forget a request whose texts could not be tokenized."""
        self._queue_of(entry).tokenizing -= 1
        self.drop(entry)

    def split_failed(self, run: Run[Owner]) -> list[Run[Owner]]:
        """Return a run that failed as runs of one row each, for those that still want theirs."""
        rows = [(entry, row) for entry, places in run.parts if not entry.is_over for row in places]
        runs = [
            Run(run.model, run.length, ((entry, (row,)),), entry.seconds(run.length, 1))
            for entry, row in rows
        ]
        self._running_s += sum(single.cost_s for single in runs)
        return runs

    def drop(self, entry: QueueEntry[Owner]) -> None:
        """Forget what is left of a request: it is complete, cancelled or late."""
        if not entry.is_over:
            entry.is_over = True
            self._queue_of(entry).cost_s -= entry.cost_s
            entry.discard_rows()

    def done(self, run: Run[Owner]) -> None:
        """Note that a run has ended."""
        self._running_s = max(0.0, self._running_s - run.cost_s)

    def next(self, now_s: float) -> Tokenize[Owner] | Run[Owner] | None:
        """Hand out the next piece of work, or None if there is none."""
        for queues in self._levels:
            busy = [queue for queue in queues.values() if queue.incoming or queue.ready]
            for queue in sorted(busy, key=lambda queue: queue.clock_s):
                task = self._next_of(queue, queues, now_s)
                if task is not None:
                    return task
        return None

    def finish_s(self, level: int, tenant: str, cost_s: float) -> float:
        """Predict after how many seconds a new request of a tenant that costs `cost_s` would be done.

        Before it come all more urgent levels, and of its own level what its tenant has waiting. Beside it come the
        other tenants, with what they get meanwhile by their weights, but no more than they have waiting.
        """
        urgent_s = sum(queue.cost_s for queues in self._levels[:level] for queue in queues.values())
        own = self._levels[level][tenant]
        own_s = own.cost_s + cost_s
        others = [queue for name, queue in self._levels[level].items() if name != tenant]
        beside_s = sum(min(queue.cost_s, own_s * queue.weight / own.weight) for queue in others)
        return max(0.0, self._running_s + urgent_s + own_s + beside_s) / self._workers

    @property
    def backlog_s(self) -> float:
        """Predicted seconds of work that wait or run, for all workers together; 0 if there is none.

        Costs are added and taken off again in parts, which leaves some 1e-16 s of a queue that is empty.
        """
        waiting_s = sum(queue.cost_s for queues in self._levels for queue in queues.values())
        work_s = self._running_s + waiting_s
        return work_s / self._workers if work_s > _ROUNDING_S else 0.0

    def _queue_of(self, entry: QueueEntry[Owner]) -> _TenantQueue[Owner]:
        return self._levels[entry.level][entry.tenant]

    def _next_of(
        self,
        queue: _TenantQueue[Owner],
        queues: Mapping[str, _TenantQueue[Owner]],
        now_s: float,
    ) -> Tokenize[Owner] | Run[Owner] | None:
        """Return the next work of one tenant: it tokenizes ahead only until there is enough for full runs."""
        self._drop_expired(queue.incoming, now_s)
        self._drop_expired(queue.ready, now_s)
        ahead = sum(entry.tokens for entry in itertools.islice(queue.ready, LOOK_BACK))
        if queue.incoming and ahead < 2 * self._fill_tokens * self._workers:
            entry = queue.incoming.popleft()
            queue.tokenizing += 1
            queue.clock_s += entry.cost_s * TOKENIZE_SHARE / queue.weight
            return Tokenize(entry)
        while queue.ready:
            run = self._run(queue.ready[0], queues, now_s)
            self._drop_expired(queue.ready, now_s)
            if run is not None:
                return run
        return None

    def _drop_expired(self, entries: deque[QueueEntry[Owner]], now_s: float) -> None:
        """Take what is over, empty or late from the head of a queue; the rest is met when its turn comes."""
        while entries:
            entry = entries[0]
            if entry.deadline_s <= now_s:
                self.drop(entry)
            if not entry.is_over and not (entry.is_tokenized and not entry.waiting):
                return
            entries.popleft()

    def _run(
        self, entry: QueueEntry[Owner], queues: Mapping[str, _TenantQueue[Owner]], now_s: float
    ) -> Run[Owner] | None:
        """Take a run of the longest part of a request; None, and the request dropped, if no row is done in time."""
        length = max(entry.waiting, key=lambda length: (length * len(entry.waiting[length]), length))
        share = max(self._fill_tokens, -(-entry.tokens // (2 * self._workers)))
        count = len(entry.waiting[length])
        parts = max(-(-count * length // share), -(-count // max(1, self._most // length)))
        count = _in_time(entry, length, -(-count // parts), now_s)
        if not count:
            self.drop(entry)
            return None
        taken = [self._take(entry, length, count)]
        for other in self._requests_behind(entry, queues):
            room = self._fill_tokens // length - sum(len(rows) for _, rows, _ in taken)
            if room <= 0:
                break
            if length in other.waiting and other.deadline_s > now_s:
                taken.append(self._take(other, length, room))
        cost_s = sum(cost for _, _, cost in taken)
        self._running_s += cost_s
        return Run(entry.model, length, tuple((e, rows) for e, rows, _ in taken), cost_s)

    def _take(
        self, entry: QueueEntry[Owner], length: int, count: int
    ) -> tuple[QueueEntry[Owner], tuple[int, ...], float]:
        queue = self._queue_of(entry)
        rows, cost_s = entry.take(length, count)
        queue.cost_s -= cost_s
        queue.clock_s += cost_s / queue.weight
        return entry, tuple(rows), cost_s

    def _requests_behind(
        self, entry: QueueEntry[Owner], queues: Mapping[str, _TenantQueue[Owner]]
    ) -> Iterator[QueueEntry[Owner]]:
        """Yield requests of the same model further back, those of the own level in their order first."""
        levels = [queues, *self._levels[entry.level + 1 :]]
        ready = [
            queue.ready
            for level in levels
            for queue in sorted(level.values(), key=lambda queue: queue.clock_s)
        ]
        candidates = itertools.islice(itertools.chain.from_iterable(ready), LOOK_BACK)
        yield from (e for e in candidates if e is not entry and not e.is_over and e.model == entry.model)


def _in_time(entry: QueueEntry[Owner], length: int, count: int, now_s: float) -> int:
    """Return how many of `count` rows are computed before the deadline, as predicted."""
    left_s = entry.deadline_s - now_s
    if entry.seconds(length * count, count) <= left_s:
        return count
    one_s = entry.seconds(length, 1)
    two_s = entry.seconds(2 * length, 2)
    if one_s > left_s:
        return 0
    return min(count, 1 + int((left_s - one_s) / max(two_s - one_s, 1e-9)))
