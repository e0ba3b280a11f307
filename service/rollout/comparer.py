"""Has a second model rank a list after it was answered, and takes a canary out that does badly.

Knows models, their roles and the scorer; does not know requests, HTTP or how models change.
Invariant: no request waits for a comparison: it is computed at the lowest priority, in pieces so small that no worker
is long at one, a few at a time, and not at all while there is more to do.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.domain.budget import DEFAULT_TENANT, Terms
from service.domain.ranking import Ranking
from service.engine.cost import CostModel
from service.engine.model import LoadedModel
from service.errors import Refused
from service.rollout.trial import AbortReason, Floats, Limits, compare_scores, find_abort_reason, is_sampled
from service.rollout.versions import Candidate, CandidateRole, Version, Versions
from service.scoring.ranker import RequestedGroups
from service.settings import Settings
from service.telemetry.metrics import Metrics

MAX_TASKS: Final = 4
MAX_PRODUCTS: Final = 100  # of a list, its first; comparing takes 0.3 ms then
PIECE: Final = 8  # products; a worker that has begun one is free again within a few milliseconds
BUSY_S: Final = 0.05  # predicted time of what waits, above which nothing is added
MAX_WAIT_S: Final = 5.0
TYPICAL: Final = (2_048, 50, 8)  # tokens, rows and runs by which two models' speeds are compared

Rank = Callable[[LoadedModel, RequestedGroups, Terms], Awaitable[Ranking]]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A list that a model has scored, and the model that is to score it too."""

    role: CandidateRole
    candidate: Candidate
    version: Version
    group: RequestedGroups
    scores: Floats


class ModelComparer:
    """Compares models on the lists that were answered.

    `rank` ranks, `backlog_s` says how long what waits will take, and `end_canary` takes the canary out.
    """

    def __init__(  # noqa: PLR0913  its three ways to act are told apart by name
        self,
        settings: Settings,
        versions: Versions,
        metrics: Metrics,
        *,
        rank: Rank,
        backlog_s: Callable[[], float],
        end_canary: Callable[[AbortReason], None],
    ) -> None:
        self._compared = settings.canary_compared
        self._limits = Limits(settings.canary_overlap, settings.canary_tau, settings.canary_slowdown)
        self._versions = versions
        self._metrics = metrics
        self._rank = rank
        self._backlog_s = backlog_s
        self._end_canary = end_canary
        self._tasks: set[asyncio.Task[None]] = set()

    def observe(self, version: Version, groups: RequestedGroups, ranking: Ranking) -> None:
        """Take note of an answer, and have another model look at its list if that is its share."""
        if not self._versions.candidates:
            return
        canary = self._versions.candidates.get("canary")
        if canary is not None:
            self._count_answer(canary, version, ranking)
        if len(groups) != 1 or len(ranking.products) < 2 or len(self._tasks) >= MAX_TASKS:
            return
        ((query, products),) = groups
        group = [(query, products[:MAX_PRODUCTS])]
        for role, candidate, other in self._others(version, query):
            comparison = _Comparison(role, candidate, other, group, scores_of(ranking)[:MAX_PRODUCTS])
            task = asyncio.create_task(self._compare(comparison))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def close(self) -> None:
        """Begin no more and forget those that were begun."""
        for task in self._tasks:
            task.cancel()

    def _count_answer(self, canary: Candidate, version: Version, ranking: Ranking) -> None:
        failed = ranking.unscored.engine + ranking.unscored.nonfinite
        if version is canary.version:
            canary.trial.candidate.add(len(ranking.products), failed)
            self._judge(canary)
        elif version is self._versions.stable:
            canary.trial.stable.add(len(ranking.products), failed)

    def _others(self, version: Version, query: str) -> Iterator[tuple[CandidateRole, Candidate, Version]]:
        """Yield who else is to rank: the stable model after the canary, the shadow after the stable model."""
        stable, candidates = self._versions.stable, self._versions.candidates
        canary, shadow = candidates.get("canary"), candidates.get("shadow")
        if canary is not None and version is canary.version and is_sampled(query, self._compared, "compared"):
            yield "canary", canary, stable
        if shadow is not None and version is stable and is_sampled(query, shadow.share, "shadow"):
            yield "shadow", shadow, shadow.version

    async def _compare(self, comparison: _Comparison) -> None:
        found = await self._scores(comparison)
        agreement = None if found is None else compare_scores(comparison.scores, found)
        role, candidate = comparison.role, comparison.candidate
        if agreement is None or self._versions.candidates.get(role) is not candidate:
            return
        candidate.trial.compared(agreement)
        self._metrics.rollout.compared[role].inc()
        mean = candidate.trial.agreement
        assert mean is not None, "one has just been added"
        self._metrics.rollout.set_agreement(
            role,
            overlap_at_10=mean.overlap_at_10,
            kendall_tau=mean.kendall_tau,
            score_difference=mean.score_difference,
        )
        if role == "canary":
            self._judge(candidate)

    async def _scores(self, comparison: _Comparison) -> Floats | None:
        """Return the other model's scores of all products, or None if there was no time for it."""
        ((query, products),) = comparison.group
        terms = Terms(time.monotonic() + MAX_WAIT_S, "offline", "error", DEFAULT_TENANT)
        scores: list[Floats] = []
        for start in range(0, len(products), PIECE):
            if self._backlog_s() > BUSY_S:
                return None
            piece = [(query, products[start : start + PIECE])]
            try:
                ranking = await self._rank(comparison.version.model, piece, terms)
            except Refused:
                return None
            scores.append(scores_of(ranking))
            if comparison.role == "shadow":  # it answers nobody, so its drift is seen here alone
                comparison.version.drift.add(
                    ranking.logits,
                    rows=ranking.rows,
                    truncated=ranking.truncated,
                    tokens=ranking.tokens,
                    unknown=ranking.unknown_tokens,
                )
        return np.concatenate(scores)

    def _judge(self, canary: Candidate) -> None:
        slowdown = _speed(canary.version) / _speed(self._versions.stable)
        reason = find_abort_reason(canary.trial, slowdown, self._limits)
        if reason is not None and self._versions.candidates.get("canary") is canary:
            self._end_canary(reason)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Forget a task; an error in it was one of a worker, which has counted it."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


def scores_of(ranking: Ranking) -> Floats:
    """Return the scores of a ranking in the order of the request, float64 [n], NaN where there is none."""
    scores = np.full(len(ranking.products), np.nan)
    for product in ranking.products:
        if product.label is not None:
            scores[product.index] = product.score
    return scores


def _speed(version: Version) -> float:
    """Seconds that a typical list takes, as measured lately."""
    costs: CostModel = version.model.costs
    return costs.seconds(*TYPICAL)
