"""PURE. Adds up the metrics of several processes.

Knows Prometheus's text format and how each gauge adds up; does not know processes.
Invariant: a counter never falls, whatever becomes of a process, as what it had counted is kept.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LASTING: Final = frozenset({"counter", "histogram", "summary"})
LARGEST: Final = frozenset(
    {
        "process_start_time_seconds",
        "python_info",
        "shelfrank_catalogue_bytes",  # all processes have the same one open
        "shelfrank_catalogue_products",
        "shelfrank_drift_class_distance",
        "shelfrank_drift_psi",
        "shelfrank_loop_lag_seconds",
        "shelfrank_model_info",
        "shelfrank_queue_seconds",
        "shelfrank_ready",
    }
)
"""Gauges that are as large as the largest of all processes."""

MEAN: Final = frozenset(
    {
        "shelfrank_canary_kendall_tau",
        "shelfrank_canary_overlap_at_10",
        "shelfrank_canary_score_difference",
        "shelfrank_drift_truncated_ratio",
        "shelfrank_drift_unknown_ratio",
    }
)
"""Gauges of which the mean of all processes is told; every other gauge is their sum."""

Series = dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]


class _Parts(Collector):
    """Families as a writer wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def read_metrics(text: bytes) -> list[Metric]:
    """Read one process's metrics."""
    return list(text_string_to_metric_families(text.decode()))


def write_metrics(families: Iterable[Metric]) -> bytes:
    """Write metrics in Prometheus's text format."""
    return generate_latest(_Parts(families))


def add_up(parts: Sequence[Iterable[Metric]]) -> list[Metric]:
    """Return the metrics of all parts as those of one."""
    values: dict[str, Series] = {}
    first: dict[str, Metric] = {}
    for family in (family for part in parts for family in part):
        first.setdefault(family.name, family)
        series = values.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            series.setdefault(key, []).append(sample.value)
    return [_family(first[name], series) for name, series in values.items()]


def lasting(families: Iterable[Metric]) -> list[Metric]:
    """Return what outlives its process: what was counted, but not what was the case."""
    return [family for family in families if family.type in LASTING]


def _family(like: Metric, series: Series) -> Metric:
    family = Metric(like.name, like.documentation, like.type, like.unit)
    for (name, labels), values in series.items():
        family.add_sample(name, dict(labels), _one(like.name, values))
    return family


def _one(name: str, values: Sequence[float]) -> float:
    if name in LARGEST:
        return max(values)
    return sum(values) / len(values) if name in MEAN else sum(values)
