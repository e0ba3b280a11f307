"""Ranks products for a query: admits what fits the budget, and has it computed by the workers in time.

Knows models, terms, predictions and the pool; does not know how a list is computed, nor HTTP.
Invariant: every call ends by its deadline, and what was admitted is released when it ends.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, TypeVar

from bundle.text import Packed
from service.domain.budget import PRIORITIES, RESPOND_S, Terms
from service.domain.query import text_chars
from service.domain.ranking import Cause, Ranking
from service.engine.cost import LatenessEstimate
from service.engine.model import LoadedModel
from service.errors import Reason, Refused
from service.scoring.admission import CHARS_PER_TOKEN, Admission, documents_that_fit, predict_tokens
from service.scoring.job import EncodableGroups, RankingJob
from service.scoring.queue_entry import QueueEntry
from service.scoring.worker import FunctionJob, WorkerPool

Result = TypeVar("Result")
EXPECTED_RUNS: Final = 8  # of a list, about one for each padded length
MIN_PART_S: Final = 0.04
"""Of a worker. Behind others, a part of a list that takes less is not begun: to be answered costs it a millisecond or two,
which others could have computed in."""

HEADROOM: Final = 1.15
"""A request behind others is let in if so many times what is expected fits: a queue that is filled to the last millisecond
ends in work that is too late, benchmarks/service/overload.py."""

STALE_AFTER_S: Final = 1.0
CAUTION: Final = {"error": 1.0, "degrade": 0.5}
"""Spreads of the lateness that are added to what is expected: what is late is work for nothing, the whole of
it or its last run."""


class Scorer:
    """Ranks on worker threads; its methods are called on the event loop and do not block it."""

    def __init__(self, pool: WorkerPool, admission: Admission) -> None:
        self.pool = pool
        self.admission = admission
        self._lateness = [LatenessEstimate() for _ in PRIORITIES]

    def rank(
        self, model: LoadedModel, groups: EncodableGroups, terms: Terms, *, measured: bool = False
    ) -> asyncio.Future[Ranking]:
        """Rank the products of several queries as one list; a place's index counts through all groups.

        Cancelling the future drops what has not been started. A ranking that is to be `measured` also says how much
        of each text was read. Refused if the queue is full, or, if the terms are `error`, as soon as not all products
        fit into the budget.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ranking] = loop.create_future()
        products = sum(len(products) for _, products in groups)
        if not products and not measured:
            future.set_result(Ranking())
            return future
        job = RankingJob(model, groups, future, measured=measured)
        tokens = _predicted_tokens(model, groups)
        costs_s = _costs(model, tokens)
        available_s = terms.deadline_s - RESPOND_S - time.monotonic()
        admitted, predicted_s, cause = self._admit_or_refuse(costs_s, terms, available_s)
        self._reserve(sum(tokens[:admitted]), terms.tenant, future)
        if admitted < products:
            job.exclude(admitted, cause)
        if not admitted and not measured:
            job.end()
            return future
        entry: QueueEntry[RankingJob] = QueueEntry(
            owner=job,
            model=model,
            level=terms.level,
            tenant=terms.tenant,
            deadline_s=terms.deadline_s - RESPOND_S,
            cost_s=math.fsum(costs_s[:admitted]),
            seconds=model.costs.seconds,
        )
        timer = loop.call_later(max(0.0, available_s), job.end)

        def settled(done: asyncio.Future[Ranking]) -> None:
            timer.cancel()
            self.pool.drop(entry)
            if not done.cancelled():
                self._lateness[terms.level].observe(predicted_s, job.age_s)

        future.add_done_callback(settled)
        self.pool.submit(entry)
        return future

    def _admit_or_refuse(
        self, costs_s: Sequence[float], terms: Terms, available_s: float
    ) -> tuple[int, float, Cause]:
        """Return how many documents are let in, when they are predicted to be done, and what keeps the others out.

        Refused if some are kept out of a request that wants all or an error.
        """
        admitted, predicted_s = self._plan_admission(costs_s, terms, available_s)
        alone_s = math.fsum(costs_s) / self.pool.size
        cause = Cause.DEADLINE if alone_s > available_s else Cause.OVERLOAD
        if admitted < len(costs_s) and terms.on_failure == "error":
            raise Refused(Reason.DEADLINE if cause == Cause.DEADLINE else Reason.OVERLOADED)
        return admitted, predicted_s, cause

    def _reserve(self, tokens: int, tenant: str, future: asyncio.Future[Ranking]) -> None:
        """Take tokens of a tenant's share of the queue until a future is done; Refused if there are not so many."""
        if not self.admission.admit(tenant, tokens):
            raise Refused(Reason.OVERLOADED)
        future.add_done_callback(lambda _: self.admission.release(tenant, tokens))

    def _plan_admission(
        self, costs_s: Sequence[float], terms: Terms, available_s: float
    ) -> tuple[int, float]:
        """Return how many documents fit, and when they are predicted to be done.

        What waits may take longer than predicted, as others did lately; with nothing before it a request is let in as
        it is predicted, so that there is always one to learn from. If none was for a while, one that wants all or an
        error is let in whatever is predicted, or a prediction that was too high once would refuse all for ever.
        """
        pool, lateness, whole_s = self.pool, self._lateness[terms.level], math.fsum(costs_s)
        spreads = CAUTION[terms.on_failure]
        is_first = not pool.backlog_s
        is_stale = terms.on_failure == "error" and pool.since_observed_s > STALE_AFTER_S
        if is_first and (is_stale or whole_s / pool.size <= available_s):
            return len(costs_s), whole_s / pool.size

        def finish_s(cost_s: float) -> float:
            predicted_s = pool.finish_s(terms.level, terms.tenant, cost_s)
            return predicted_s if is_first else HEADROOM * lateness.expected_s(predicted_s, spreads)

        worthwhile = (cost_s for cost_s in accumulate(costs_s) if is_first or cost_s >= MIN_PART_S)
        least_s = next(worthwhile, whole_s)
        admitted = (
            0 if finish_s(least_s) > available_s else documents_that_fit(costs_s, finish_s, available_s)
        )
        return admitted, pool.finish_s(terms.level, terms.tenant, math.fsum(costs_s[:admitted]))

    def offload(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run a function on a worker, before any ranking that waits."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.pool.offload(FunctionJob(function, future))
        return future


def _predicted_tokens(model: LoadedModel, groups: EncodableGroups) -> list[int]:
    """Predict how many tokens each pair is computed with."""
    encoder = model.encoder
    return [
        length
        for query, products in groups
        for length in model.padded_lengths(
            predict_tokens(
                len(query),
                [
                    encoder.packed_tokens(product.payload) * CHARS_PER_TOKEN
                    if isinstance(product, Packed)
                    else text_chars(product)
                    for product in products
                ],
                model.longest,
            )
        )
    ]


def _costs(model: LoadedModel, tokens: Sequence[int]) -> list[float]:
    """Predict what each pair costs, in seconds of one worker; the fixed cost of the runs is spread over all."""
    runs_s = model.costs.seconds(0, 0, min(EXPECTED_RUNS, len(tokens))) / max(1, len(tokens))
    per_token, per_row = model.costs.seconds(1, 0, 0), model.costs.seconds(0, 1, 0) + runs_s
    return [per_token * count + per_row for count in tokens]
