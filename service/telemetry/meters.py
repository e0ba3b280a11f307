"""The metrics of the parts beside the ranking itself: budgets, caches, the catalogue, and models that come and go.

Knows names, closed label sets and buckets; does not know when anything happens.
Invariant: no label takes a value from a request; what is counted exists from the start, so that rates start at zero.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.domain.budget import PRIORITIES

STAGES: Final = ("receive", "parse", "queue", "tokenize", "infer", "respond", "total")
"""In the order of a request's life; the last is the whole of it."""

UNSCORED: Final = ("engine", "nonfinite", "deadline", "overload", "unknown_id")
"""Why a document has no score, and a whole answer is degraded: the gravest cause that it has."""

DECISIONS: Final = ("all", "part", "none")
CANDIDATE_ROLES: Final = ("canary", "shadow")
ROLES: Final = ("stable", *CANDIDATE_ROLES, "named")
"""The last is that of models which only those requests get that name them."""

RELOADS: Final = ("done", "failed")

DialectName = Literal["own", "cohere", "jina", "voyage", "infinity", "tei", "vllm", "nvidia"]
"""Dialects whose requests are JSON with keys of their own."""


class Trouble(StrEnum):
    """Why the shared cache was of no use."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    GARBAGE = "garbage"
    PAUSED = "paused"
    BUSY = "busy"


SLACK_SECONDS: Final = (
    -1, -0.25, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, -0.001, 0,
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
)  # fmt: skip


def by_label(counter: Counter, label_values: Sequence[str]) -> Mapping[str, Counter]:
    """Create the series of a counter with one label, and look them up once for all."""
    return {value: counter.labels(value) for value in label_values}


def stage_missed(times_s: Mapping[str, float], budget_s: float) -> str | None:
    """PURE. Return the stage in which a budget ran out, None if it did not.

    `times_s` is how long each stage took; a stage that is not there took no time.

    >>> stage_missed({"receive": 0.001, "queue": 0.02, "infer": 0.03}, budget_s=0.02)
    'queue'
    >>> stage_missed({"receive": 0.001, "queue": 0.02, "infer": 0.03}, budget_s=0.06)
    """
    for stage in STAGES[:-1]:
        budget_s -= times_s.get(stage, 0.0)
        if budget_s < 0:
            return stage
    return None


class BudgetMeter:
    """Whether requests were let in, and answered in time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        admitted = counter(
            "shelfrank_admitted",
            "Requests by how many of their documents were let in: all, the first ones, or none.",
            ["priority", "decision"],
        )
        self.admitted: Mapping[tuple[str, str], Counter] = {
            both: admitted.labels(*both) for both in product(PRIORITIES, DECISIONS)
        }
        self.slack_seconds = Histogram(
            "shelfrank_budget_slack_seconds",
            "What was left of the budget when the answer was ready; below 0 it was late.",
            buckets=SLACK_SECONDS,
            registry=registry,
        )
        misses = counter(
            "shelfrank_deadline_misses",
            "Requests whose budget ran out before all admitted documents were scored and answered, by stage.",
            ["stage"],
        )
        self.misses = by_label(misses, STAGES[:-1])
        self.goodput = counter("shelfrank_goodput_documents", "Documents scored and answered in time.")
        degraded = counter(
            "shelfrank_degraded",
            "Answers in which documents have no score, by the gravest cause.",
            ["reason"],
        )
        self.degraded = by_label(degraded, UNSCORED)


class CacheMeter:
    """The score cache in memory, and the one that is shared with other replicas."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        lookups = counter(
            "shelfrank_cache_lookups",
            "Pairs looked up in the score cache; joined ones waited for another request that computed them.",
            ["result"],
        )
        self.hits, self.misses, self.joined = (lookups.labels(value) for value in ("hit", "miss", "joined"))
        self.evictions = counter("shelfrank_cache_evictions", "Pairs that made room for others.")
        self.bytes = Gauge("shelfrank_cache_bytes", "Bytes that the score cache takes.", registry=registry)
        remote = counter("shelfrank_cache_remote_lookups", "Pairs looked up in the shared cache.", ["result"])
        self.remote_hits, self.remote_misses = (remote.labels(value) for value in ("hit", "miss"))
        writes = counter(
            "shelfrank_cache_remote_writes",
            "Pairs stored in the shared cache, or dropped because it was slow or away.",
            ["result"],
        )
        self.stored, self.dropped = (writes.labels(value) for value in ("stored", "dropped"))
        troubles = counter(
            "shelfrank_cache_remote_troubles",
            "Lookups, writes and values of the shared cache that were of no use, by why.",
            ["trouble"],
        )
        self.troubles = by_label(troubles, tuple(Trouble))


class CatalogueMeter:
    """Products that are stored here, so that a request needs to send their ids alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        lookups = Counter(
            "shelfrank_catalogue_lookups", "Ids looked up in the catalogue.", ["result"], registry=registry
        )
        self.hits, self.misses = (lookups.labels(value) for value in ("hit", "miss"))
        self.products = Gauge("shelfrank_catalogue_products", "Products stored.", registry=registry)
        self.bytes = Gauge("shelfrank_catalogue_bytes", "Bytes that the catalogue takes.", registry=registry)


class RolloutMeter:
    """Models that are loaded anew, and how a canary or a shadow agrees with the stable model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        reloads = counter(
            "shelfrank_reloads",
            "Times that another bundle was asked for; after a failed one the old bundle serves on.",
            ["result"],
        )
        self.reloads = by_label(reloads, RELOADS)
        self.aborts = counter("shelfrank_canary_aborts", "Canaries taken out because they did badly.")
        compared = counter(
            "shelfrank_canary_lists",
            "Lists ranked by the stable model and by another one, and compared.",
            ["role"],
        )
        self.compared = by_label(compared, CANDIDATE_ROLES)
        self._agreement = tuple(
            Gauge(f"shelfrank_canary_{name}", sentence, ["role"], registry=registry)
            for name, sentence in (
                ("overlap_at_10", "Share of the stable model's first ten that are among the other's."),
                ("kendall_tau", "Kendall's tau of both orders: 1 is the same, -1 the reverse."),
                ("score_difference", "Mean absolute difference of both scores of a document."),
            )
        )

    def set_agreement(
        self, role: str, *, overlap_at_10: float, kendall_tau: float, score_difference: float
    ) -> None:
        """Set how a candidate agreed with the stable model over the lists that both ranked lately."""
        assert role in CANDIDATE_ROLES, "a role that nobody knows"
        values = (overlap_at_10, kendall_tau, score_difference)
        for gauge, value in zip(self._agreement, values, strict=True):
            gauge.labels(role).set(value)

    def clear_agreement(self, role: str) -> None:
        """Remove the agreement of a candidate that has left."""
        for gauge in self._agreement:
            gauge.remove(role)
