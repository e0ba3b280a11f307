"""The metrics of the parts beside the ranking itself: budgets, the catalogue, and models that come and go.

Knows names, closed label sets and buckets; does not know when anything happens.
Invariant: no label takes a value from a request; what is counted exists from the start, so that rates start at zero.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.domain.budget import PRIORITIES

STAGES: Final = ("receive", "parse", "queue", "tokenize", "infer", "respond", "total")
"""In the order of a request's life; the last is the whole of it."""

UNSCORED: Final = ("engine", "nonfinite", "deadline", "overload", "unknown_id")
"""Why a document has no score, and a whole answer is degraded: the gravest cause that it has."""

DECISIONS: Final = ("all", "part", "none")
NEWCOMERS: Final = ("canary", "shadow")
ROLES: Final = ("stable", *NEWCOMERS, "named")
"""The last is that of models which only those requests get that name them."""

RELOADS: Final = ("done", "failed")

Spoken = Literal["own", "cohere", "jina", "voyage", "infinity", "tei", "vllm", "nvidia"]
"""Dialects whose requests are JSON with keys of their own."""

SLACK_SECONDS: Final = (
    -1, -0.25, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, -0.001, 0,
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
)  # fmt: skip


def split(counter: Counter, label_values: Sequence[str]) -> Mapping[str, Counter]:
    """Create the series of a counter with one label, and look them up once for all."""
    return {value: counter.labels(value) for value in label_values}


def missed_in(times_s: Mapping[str, float], budget_s: float) -> str | None:
    """PURE. Return the stage in which a budget ran out, None if it did not.

    `times_s` is how long each stage took; a stage that is not there took no time.

    >>> missed_in({"receive": 0.001, "queue": 0.02, "infer": 0.03}, budget_s=0.02)
    'queue'
    >>> missed_in({"receive": 0.001, "queue": 0.02, "infer": 0.03}, budget_s=0.06)
    """
    for stage in STAGES[:-1]:
        budget_s -= times_s.get(stage, 0.0)
        if budget_s < 0:
            return stage
    return None


class BudgetMeter:
    """Whether requests were let in, and answered in time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        admitted = Counter(
            "shelfrank_admitted",
            "Requests by how many of their documents were let in: all, the first ones, or none.",
            ["priority", "decision"],
            registry=registry,
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
        misses = Counter(
            "shelfrank_deadline_misses",
            "Requests whose budget ran out before all admitted documents were scored and answered, by stage.",
            ["stage"],
            registry=registry,
        )
        self.misses = split(misses, STAGES[:-1])
        self.goodput = Counter(
            "shelfrank_goodput_documents", "Documents scored and answered in time.", registry=registry
        )
        degraded = Counter(
            "shelfrank_degraded",
            "Answers in which documents have no score, by the gravest cause.",
            ["reason"],
            registry=registry,
        )
        self.degraded = split(degraded, UNSCORED)


class CatalogueMeter:
    """Products that are stored here, so that a request needs to send their ids alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        lookups = Counter(
            "shelfrank_catalogue_lookups", "Ids looked up in the catalogue.", ["result"], registry=registry
        )
        self.hits, self.misses = (lookups.labels(value) for value in ("hit", "miss"))
        self._products = Gauge("shelfrank_catalogue_products", "Products stored.", registry=registry)
        self._bytes = Gauge("shelfrank_catalogue_bytes", "Bytes that the catalogue takes.", registry=registry)

    def watch(self, *, products: Callable[[], float], size_bytes: Callable[[], float]) -> None:
        """Read these gauges from their sources at each scrape."""
        self._products.set_function(products)
        self._bytes.set_function(size_bytes)


class RolloutMeter:
    """Models that are loaded anew, and how a canary or a shadow agrees with the stable model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        reloads = Counter(
            "shelfrank_reloads",
            "Times that another bundle was asked for; after a failed one the old bundle serves on.",
            ["result"],
            registry=registry,
        )
        self.reloads = split(reloads, RELOADS)
        self.aborts = Counter(
            "shelfrank_canary_aborts", "Canaries taken out because they did badly.", registry=registry
        )
        compared = Counter(
            "shelfrank_canary_lists",
            "Lists ranked by the stable model and by another one, and compared.",
            ["role"],
            registry=registry,
        )
        self.compared = split(compared, NEWCOMERS)
        self._agreement = tuple(
            Gauge(f"shelfrank_canary_{name}", sentence, ["role"], registry=registry)
            for name, sentence in (
                ("overlap_at_10", "Share of the stable model's first ten that are among the other's."),
                ("kendall_tau", "Kendall's tau of both orders: 1 is the same, -1 the reverse."),
                ("score_difference", "Mean absolute difference of both scores of a document."),
            )
        )

    def agree(self, role: str, *, overlap_at_10: float, kendall_tau: float, score_difference: float) -> None:
        """Tell how a newcomer agreed with the stable model over the lists that both were asked lately."""
        assert role in NEWCOMERS, "a role that nobody knows"
        told = (overlap_at_10, kendall_tau, score_difference)
        for gauge, value in zip(self._agreement, told, strict=True):
            gauge.labels(role).set(value)

    def part(self, role: str) -> None:
        """Forget the agreement of a newcomer that has gone."""
        for gauge in self._agreement:
            gauge.remove(role)
