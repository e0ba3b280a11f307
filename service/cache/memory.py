"""Remembers logits, and has each pair that several requests miss at once computed by one of them.

Knows keys, logits, and how urgent requests are; does not know texts, the engine, or a cache outside this process.
Invariant: every claimed pair is resolved when its claim ends, however it ends, so no request waits in vain.

All of it belongs to one thread, the event loop's: a method runs from start to end before the next one starts, so there
are no locks. What is claimed is bounded by admission, what is remembered by the table.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from service.cache.score_table import ScoreTable
from service.domain.budget import Terms
from service.telemetry.meters import CacheMeter


@dataclass(slots=True, eq=False)
class _PendingScore:
    """A pair that is being computed: on what terms, by one or more requests, and who waits for it."""

    leaders: list[Terms] = field(default_factory=list)
    followers: asyncio.Future[float | None] | None = None

    def is_worth_waiting_for(self, terms: Terms) -> bool:
        """Whether a leader is of the same tenant, no less urgent, and due no later.

        Otherwise a search page would wait for an offline job, or one tenant for another that floods the service.
        """
        return any(
            leader.tenant == terms.tenant
            and leader.level <= terms.level
            and leader.deadline_s <= terms.deadline_s
            for leader in self.leaders
        )

    def follow(self) -> asyncio.Future[float | None]:
        """Return the future that all followers share."""
        if self.followers is None:
            self.followers = asyncio.get_running_loop().create_future()
        return self.followers

    def resolve(self, logit: float | None) -> None:
        """Hand the logit to the followers, unless they have one already."""
        if self.followers is not None and not self.followers.done():
            self.followers.set_result(logit)


class ScoreCache:
    """Logits of pairs under their keys, and the pairs that are on their way."""

    def __init__(self, max_bytes: int, ttl_s: float, meter: CacheMeter) -> None:
        self.table = ScoreTable(max_bytes, ttl_s)
        self.meter = meter
        meter.bytes.set_function(lambda: self.table.used_bytes)
        self._pending: dict[bytes, _PendingScore] = {}

    def claim(self, keys: Sequence[bytes], now_s: float, terms: Terms) -> "Claims":
        """Say for each key whether its logit is known, is for the caller to compute, or comes from another request.

        A key that is in the list twice is to be computed once: the second one is shared with the first.
        """
        claims, pending_scores = Claims(self, keys), self._pending
        for index, (key, logit) in enumerate(zip(keys, self.table.find(keys, now_s).tolist(), strict=True)):
            if logit == logit:  # noqa: PLR0124  NaN is no logit
                claims.known[index] = logit
                continue
            pending = pending_scores.get(key)
            if pending is None:
                pending = pending_scores[key] = _PendingScore()
            elif pending.is_worth_waiting_for(terms):
                claims.awaited[index] = pending.follow()
                continue
            pending.leaders.append(terms)
            claims._claimed[index] = pending, terms  # noqa: SLF001  a claim is the cache's other half
        self.meter.hits.inc(len(claims.known))
        self.meter.joined.inc(len(claims.awaited))
        self.meter.misses.inc(len(keys) - len(claims.known) - len(claims.awaited))
        return claims

    @property
    def in_flight(self) -> int:
        """How many pairs are being computed."""
        return len(self._pending)

    def _end(self, key: bytes, pending: _PendingScore, terms: Terms, logit: float | None) -> None:
        pending.leaders.remove(terms)
        if logit is None and pending.leaders:
            return  # another leader may still bring it
        if pending.followers is not None:
            pending.resolve(logit)
        if self._pending.get(key) is pending:
            del self._pending[key]


class Claims:
    """What one request knows, has to compute, and waits for, each by its place in the list of keys.

    Used as a context: at its end, every pair that was to be computed and was not settled is given up, so that those who
    wait for it compute it themselves.
    """

    def __init__(self, cache: ScoreCache, keys: Sequence[bytes]) -> None:
        self.keys = keys
        self.known: dict[int, float] = {}
        self.awaited: dict[int, asyncio.Future[float | None]] = {}
        self._claimed: dict[int, tuple[_PendingScore, Terms]] = {}
        self._cache = cache

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon()

    @property
    def to_compute(self) -> list[int]:
        """Places of the pairs that are for the caller to compute and not settled yet, in order."""
        return list(self._claimed)

    def resolve(self, logits: Mapping[int, float], now_s: float) -> None:
        """Store logits by their positions, and hand them to the requests that wait for them.

        A logit that is not finite is handed on, because it would come out the same again, but not remembered.
        """
        values = np.fromiter(logits.values(), np.float64, len(logits))
        table, meter = self._cache.table, self._cache.meter
        evictions = table.evictions
        table.store([self.keys[index] for index in logits], values, now_s)
        meter.evictions.inc(table.evictions - evictions)
        for index in logits.keys() & self._claimed.keys():
            self._finish(index, logits[index])

    def abandon(self) -> None:
        """Leave the pairs that are not settled to those who wait for them."""
        for index in self.to_compute:
            self._finish(index, None)

    async def wait(self, timeout_s: float) -> dict[int, float | None]:
        """Return what came of the shared pairs in time, by place; None is for the caller to compute.

        To be called when the caller's own pairs are settled or given up, as they may be among the shared ones. A caller
        that is cancelled takes nothing from the others.
        """
        if any(not future.done() for future in self.awaited.values()):
            await asyncio.wait(set(self.awaited.values()), timeout=max(0.0, timeout_s))
        return {index: future.result() for index, future in self.awaited.items() if future.done()}

    def _finish(self, index: int, logit: float | None) -> None:
        pending, terms = self._claimed.pop(index)
        self._cache._end(self.keys[index], pending, terms, logit)  # noqa: SLF001  the claim's other half
