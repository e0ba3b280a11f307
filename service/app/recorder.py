"""Keeps account of every ranked request: metrics, drift, its model's tally, its one log line and its trace.

Knows what a request took and what came of it; does not know texts, and nothing waits for it.
Invariant: nothing here can fail a request, and no label or field takes a value that a client sent.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final

from service.domain.budget import Terms
from service.domain.ranking import Ranking
from service.http.middleware import RequestContext
from service.rollout.versions import Version
from service.telemetry.logs import event
from service.telemetry.meters import stage_missed
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing, stage_spans

NAME: Final = "rerank"


class RequestRecorder:
    """Where the handlers put down what they did."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._tracing = tracing

    def record(  # noqa: PLR0913  each is one side of the same event
        self,
        context: RequestContext,
        headers: Mapping[str, str],
        *,
        terms: Terms,
        version: Version,
        ranking: Ranking,
        times_s: Mapping[str, float],
    ) -> None:
        """Put down a request that was ranked, with the seconds of each stage and of the whole."""
        self._count(terms, ranking, times_s, context.started_s)
        version.drift.add(
            ranking.logits,
            rows=ranking.rows,
            truncated=ranking.truncated,
            tokens=ranking.tokens,
            unknown=ranking.unknown_tokens,
        )
        version.stats.add(
            times_s,
            documents=len(ranking.products),
            cached=ranking.cached,
            failed=bool(ranking.unscored.failed),
            now_s=time.time(),
        )
        facts: dict[str, str | int | float | bool] = {
            "model": version.facts.id,
            "documents": len(ranking.products),
            "tokens": ranking.tokens,
            "degraded": ranking.unscored.reason or "",
        }
        fields = facts | {
            f"{stage}_ms": round(times_s[stage] * 1_000, 3) for stage in ("queue", "infer", "total")
        }
        if self._tracing is not None:
            whole = (NAME, context.started_s, context.started_s + times_s["total"])
            stages = stage_spans(context.started_s, times_s)
            fields["trace"] = self._tracing.record(headers, whole, stages, facts | {"request_id": context.id})
        event("ranked", logging.INFO, id=context.id, **fields)

    def _count(self, terms: Terms, ranking: Ranking, times_s: Mapping[str, float], started_s: float) -> None:
        metrics, budget = self._metrics, self._metrics.budget
        for stage, seconds in times_s.items():
            metrics.stages[stage].observe(seconds)
        documents, unscored = len(ranking.products), ranking.unscored
        metrics.request_documents.observe(documents)
        metrics.documents.inc(documents)
        metrics.tokens.inc(ranking.tokens)
        metrics.padding_tokens.inc(ranking.padding_tokens)
        if ranking.tokens:
            metrics.padding_ratio.observe(ranking.padding_tokens / ranking.tokens)
        metrics.truncated.inc(ranking.truncated)
        decision = "all" if ranking.admitted == documents else "part" if ranking.admitted else "none"
        budget.admitted[terms.priority, decision].inc()
        slack_s = terms.deadline_s - started_s - times_s["total"]
        budget.slack_seconds.observe(slack_s)
        if slack_s >= 0:
            budget.goodput.inc(documents - unscored.total)
        if slack_s < 0 or unscored.deadline:
            missed = stage_missed(times_s, terms.deadline_s - started_s)
            budget.misses["infer" if missed is None else missed].inc()
        if unscored.reason is not None:
            budget.degraded[unscored.reason].inc()
            for cause, count in unscored.by_cause.items():
                metrics.unscored_by[cause].inc(count)
