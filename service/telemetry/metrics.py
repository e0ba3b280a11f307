"""Every metric of the service, with its labels and buckets.

Knows names and closed label sets; does not know when anything happens.
Invariant: no label takes a value from a request, so the number of series is fixed at the start.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from service.errors import Reason
from service.telemetry import logs
from service.telemetry.meters import (
    STAGES,
    UNSCORED,
    BudgetMeter,
    CacheMeter,
    CatalogueMeter,
    DialectName,
    RolloutMeter,
    by_label,
)
from service.telemetry.served import ServedModels

STATUS_CLASSES: Final = ("2xx", "4xx", "5xx")
SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.25, 0.5, 1, 2.5, 5,
)  # fmt: skip
DOCUMENTS: Final = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)
PADDING: Final = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
OTHER: Final = "other"


disable_created_metrics()  # a creation time beside each counter doubles the scrape and nobody reads it


class Metrics:
    """The service's metrics, in a registry of their own; safe to use from any thread.

    What is counted for each request has its series looked up here, once: `stages["queue"].observe(seconds)`.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.routes: frozenset[str] = frozenset()
        self._add_requests(registry)
        self._add_documents(registry)
        self._add_troubles(registry)
        self._add_load(registry)
        self.budget = BudgetMeter(registry)
        self.catalogue = CatalogueMeter(registry)
        self.rollout = RolloutMeter(registry)
        self.served = ServedModels()
        self.cache = CacheMeter(registry)
        registry.register(self.served)
        registry.register(_LogLines())

    def _add_requests(self, registry: CollectorRegistry) -> None:
        """Add the metrics of every request, ranked or refused."""
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.requests = counter("shelfrank_requests", "Requests answered.", ["route", "status"])
        self.rejected = counter("shelfrank_rejected", "Requests refused, by error code.", ["reason"])
        for reason in Reason:
            self.rejected.labels(reason.code)
        ignored = counter(
            "shelfrank_ignored_keys",
            "Keys of requests that nobody here knows, and that were ignored, by dialect.",
            ["dialect"],
        )
        self.ignored_by = by_label(ignored, get_args(DialectName))
        self.stage_seconds = histogram(
            "shelfrank_stage_seconds",
            "Time that a ranked request spent in a stage.",
            ["stage"],
            buckets=SECONDS,
        )
        self.stages: Mapping[str, Histogram] = {stage: self.stage_seconds.labels(stage) for stage in STAGES}

    def _add_documents(self, registry: CollectorRegistry) -> None:
        """Add the metrics of ranked documents."""
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.request_documents = histogram(
            "shelfrank_request_documents", "Documents of a ranked request.", buckets=DOCUMENTS
        )
        self.documents = counter("shelfrank_documents", "Documents of ranked requests.")
        self.tokens = counter("shelfrank_tokens", "Tokens the model read, without padding.")
        self.padding_tokens = counter("shelfrank_padding_tokens", "Tokens of padding that were computed.")
        self.padding_ratio = histogram(
            "shelfrank_padding_ratio",
            "Tokens of padding over those that the model read, of a ranked request.",
            buckets=PADDING,
        )
        self.truncated = counter("shelfrank_truncated_documents", "Documents of which not all text was read.")
        self.unscored = counter(
            "shelfrank_unscored_documents", "Documents that got no score, by cause.", ["reason"]
        )
        self.unscored_by = by_label(self.unscored, UNSCORED)

    def _add_troubles(self, registry: CollectorRegistry) -> None:
        """Add what went wrong around requests: workers, connections, keys, the event loop."""
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.dropped = counter(
            "shelfrank_dropped_jobs", "Queued work not started because its client had gone."
        )
        self.worker_errors = counter(
            "shelfrank_worker_errors", "Errors in a worker thread; each is a bug or a broken runtime."
        )
        self.slow_readers = counter(
            "shelfrank_slow_readers", "Connections cut because nobody read the answer."
        )
        self.shed_connections = counter(
            "shelfrank_shed_connections", "Connections closed because descriptors ran short."
        )
        self.key_file_errors = counter(
            "shelfrank_key_file_errors",
            "Times that a changed file of API keys made no sense, and the old keys stayed.",
        )
        self.stuck_workers = gauge(
            "shelfrank_stuck_workers", "Worker threads that are at one task for too long."
        )
        self.loop_lag = gauge(
            "shelfrank_loop_lag_seconds",
            "Longest time of the last 15 s that the event loop kept a timer waiting.",
        )

    def _add_load(self, registry: CollectorRegistry) -> None:
        """Add how much there is to do now, and whether it is done."""
        gauge = partial(Gauge, registry=registry)
        self.in_flight = gauge("shelfrank_in_flight_requests", "Requests being answered.")
        self.queue_tokens = gauge("shelfrank_queue_tokens", "Predicted tokens admitted and not yet answered.")
        self.queue_seconds = gauge(
            "shelfrank_queue_seconds", "Predicted time until all that is queued now is done."
        )
        self.ready = gauge("shelfrank_ready", "1 while /readyz is green.")
        self.workers = gauge("shelfrank_workers", "Worker threads alive.")

    def count_routes(self, paths: Iterable[str]) -> None:
        """Create the series of all routes, so that rates start at zero and the count of series is fixed."""
        self.routes = frozenset(paths)
        for route, status in product((*self.routes, OTHER), STATUS_CLASSES):
            self.requests.labels(route, status)

    def names(self) -> list[str]:
        """Our own metrics, as a scrape shows them."""
        ours = [family for family in self.registry.collect() if family.name.startswith("shelfrank_")]
        return sorted(family.name + ("_total" if family.type == "counter" else "") for family in ours)


class _LogLines(Collector):
    """The log's own count, which is there before any metrics are."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the one counter."""
        yield CounterMetricFamily(
            "shelfrank_log_lines_dropped",
            "Log lines dropped because stderr did not take them.",
            value=logs.dropped_lines(),
        )
