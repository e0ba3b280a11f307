"""Every metric of the service, with its labels and buckets.

Knows names and closed label sets; does not know when anything happens.
Invariant: no label takes a value from a request, so the number of series is fixed at the start.
"""

from collections.abc import Callable, Iterator, Mapping
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
from service.telemetry.cache_meter import CacheMeter
from service.telemetry.meters import (
    STAGES,
    UNSCORED,
    BudgetMeter,
    CatalogueMeter,
    RolloutMeter,
    Spoken,
    split,
)
from service.telemetry.served import ServedModels

ROUTES: Final = (
    "/", "/v1/rerank", "/v1/explain", "/v1/models", "/v1/models/{model}",
    "/v1/products", "/v1/products/{product:path}",
    "/admin/models", "/admin/reload", "/admin/canary", "/admin/canary/promote", "/admin/shadow",
    "/livez", "/readyz", "/health", "/metrics", "/docs", "/openapi.json",
    "/rerank", "/reranking", "/v1/reranking", "/predict", "/score", "/v1/score", "/v1/ranking", "/v2/rerank",
    "/cohere/rerank", "/cohere/v1/rerank", "/cohere/v2/rerank", "/cohere/v2/v1/rerank", "/cohere/v2/v2/rerank",
    "/jina/v1/rerank", "/voyage/v1/rerank",
    "/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank", "/vllm/score", "/vllm/v1/score",
    "/info", "/version", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index", "/v2/models/stats",
    "/v2/models/{model}", "/v2/models/{model}/ready", "/v2/models/{model}/infer",
    "/v2/models/{model}/config", "/v2/models/{model}/stats",
    "/v2/models/{model}/versions/{version}", "/v2/models/{model}/versions/{version}/ready",
    "/v2/models/{model}/versions/{version}/infer", "/v2/models/{model}/versions/{version}/config",
    "/v2/models/{model}/versions/{version}/stats",
)  # fmt: skip
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
        self._add_requests(registry)
        self._add_documents(registry)
        self._add_troubles(registry)
        self._add_load(registry)
        self.budget = BudgetMeter(registry)
        self.catalogue = CatalogueMeter(registry)
        self.rollout = RolloutMeter(registry)
        self.served = ServedModels()
        self.cache = CacheMeter()
        registry.register(self.served)
        registry.register(self.cache)
        registry.register(_LogLines())
        self._preset()

    def _add_requests(self, registry: CollectorRegistry) -> None:
        """Add what is told of every request, be it ranked or refused."""
        self.requests = Counter(
            "shelfrank_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.rejected = Counter(
            "shelfrank_rejected", "Requests refused, by error code.", ["reason"], registry=registry
        )
        ignored = Counter(
            "shelfrank_ignored_keys",
            "Keys of requests that nobody here knows, and that were ignored, by dialect.",
            ["dialect"],
            registry=registry,
        )
        self.ignored_by = split(ignored, get_args(Spoken))
        self.stage_seconds = Histogram(
            "shelfrank_stage_seconds",
            "Time that a ranked request spent in a stage.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stages: Mapping[str, Histogram] = {stage: self.stage_seconds.labels(stage) for stage in STAGES}

    def _add_documents(self, registry: CollectorRegistry) -> None:
        """Add what is told of the documents of ranked requests."""
        self.request_documents = Histogram(
            "shelfrank_request_documents",
            "Documents of a ranked request.",
            buckets=DOCUMENTS,
            registry=registry,
        )
        self.documents = Counter("shelfrank_documents", "Documents of ranked requests.", registry=registry)
        self.tokens = Counter(
            "shelfrank_tokens", "Tokens the model read, without padding.", registry=registry
        )
        self.padding_tokens = Counter(
            "shelfrank_padding_tokens", "Tokens of padding that were computed.", registry=registry
        )
        self.padding_ratio = Histogram(
            "shelfrank_padding_ratio",
            "Tokens of padding over those that the model read, of a ranked request.",
            buckets=PADDING,
            registry=registry,
        )
        self.truncated = Counter(
            "shelfrank_truncated_documents", "Documents of which not all text was read.", registry=registry
        )
        self.unscored = Counter(
            "shelfrank_unscored_documents",
            "Documents that got no score, by cause.",
            ["reason"],
            registry=registry,
        )
        self.unscored_by = split(self.unscored, UNSCORED)

    def _add_troubles(self, registry: CollectorRegistry) -> None:
        """Add what went wrong around requests: workers, connections, keys, the event loop."""
        self.dropped = Counter(
            "shelfrank_dropped_jobs",
            "Queued work not started because its client had gone.",
            registry=registry,
        )
        self.worker_errors = Counter(
            "shelfrank_worker_errors",
            "Errors in a worker thread; each is a bug or a broken runtime.",
            registry=registry,
        )
        self.slow_readers = Counter(
            "shelfrank_slow_readers", "Connections cut because nobody read the answer.", registry=registry
        )
        self.shed_connections = Counter(
            "shelfrank_shed_connections",
            "Connections closed because descriptors ran short.",
            registry=registry,
        )
        self.key_file_errors = Counter(
            "shelfrank_key_file_errors",
            "Times that a changed file of API keys made no sense, and the old keys stayed.",
            registry=registry,
        )
        self.stuck_workers = Gauge(
            "shelfrank_stuck_workers", "Worker threads that are at one task for too long.", registry=registry
        )
        self.loop_lag = Gauge(
            "shelfrank_loop_lag_seconds",
            "Longest time of the last 15 s that the event loop kept a timer waiting.",
            registry=registry,
        )

    def _add_load(self, registry: CollectorRegistry) -> None:
        """Add how much there is to do now, and whether it is done."""
        self.in_flight = Gauge("shelfrank_in_flight_requests", "Requests being answered.", registry=registry)
        self.queue_tokens = Gauge(
            "shelfrank_queue_tokens", "Predicted tokens admitted and not yet answered.", registry=registry
        )
        self.queue_seconds = Gauge(
            "shelfrank_queue_seconds",
            "Predicted time until all that is queued now is done.",
            registry=registry,
        )
        self.ready = Gauge("shelfrank_ready", "1 while /readyz is green.", registry=registry)
        self.workers = Gauge("shelfrank_workers", "Worker threads alive.", registry=registry)

    def _preset(self) -> None:
        """Create every series now, so that rates start at zero and the count of series is fixed."""
        for route in (*ROUTES, OTHER):
            for status in STATUS_CLASSES:
                self.requests.labels(route, status)
        for reason in Reason:
            self.rejected.labels(reason.code)

    def watch(
        self,
        *,
        queue_tokens: Callable[[], float],
        queue_seconds: Callable[[], float],
        ready: Callable[[], float],
        workers: Callable[[], float],
    ) -> None:
        """Read these gauges from their sources at each scrape."""
        self.queue_tokens.set_function(queue_tokens)
        self.queue_seconds.set_function(queue_seconds)
        self.ready.set_function(ready)
        self.workers.set_function(workers)

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
