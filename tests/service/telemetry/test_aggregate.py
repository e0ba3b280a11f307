"""Tests of service/telemetry/aggregate.py."""

import re
from collections.abc import Sequence

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from service.telemetry.aggregate import LARGEST, LASTING, MEAN, add_up, lasting, read_metrics, write_metrics
from service.telemetry.metrics import Metrics
from tests.service.support import ROOT

SUMS = {
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "shelfrank_cache_bytes",
    "shelfrank_drift_classes",
    "shelfrank_drift_documents",
    "shelfrank_drift_scores",
    "shelfrank_in_flight_requests",
    "shelfrank_processes",
    "shelfrank_queue_tokens",
    "shelfrank_stuck_workers",
    "shelfrank_workers",
}
"""Gauges of which it was decided that they add up; whoever adds a gauge puts it here, or into LARGEST or MEAN."""


def _told(metrics: Metrics) -> list[Metric]:
    return read_metrics(generate_latest(metrics.registry))


def _value(families: Sequence[Metric], name: str, **labels: str) -> float:
    (found,) = (
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return float(found)


def test_processes_add_up() -> None:
    """Counters, histograms and sums add up series by series; of the others the largest is shown."""
    parts = []
    for requests, seconds, ready in ((3, 0.002, 0), (4, 5.0, 1)):
        metrics = Metrics()
        metrics.requests.labels("/v1/rerank", "2xx").inc(requests)
        metrics.stage_seconds.labels("total").observe(seconds)
        metrics.in_flight.set(requests)
        metrics.ready.set(ready)
        parts.append(_told(metrics))
    told = add_up(parts)

    assert _value(told, "shelfrank_requests_total", route="/v1/rerank", status="2xx") == 7
    assert _value(told, "shelfrank_stage_seconds_count", stage="total") == 2
    assert _value(told, "shelfrank_stage_seconds_sum", stage="total") == 5.002
    assert _value(told, "shelfrank_stage_seconds_bucket", stage="total", le="0.002") == 1
    assert _value(told, "shelfrank_in_flight_requests") == 7
    assert _value(told, "shelfrank_processes") == 2
    assert _value(told, "shelfrank_ready") == 1


def test_one_process_is_itself() -> None:
    """Adding up a single process changes no value, and writing and reading lose nothing."""
    told = _told(Metrics())

    def samples(families: Sequence[Metric]) -> set[object]:
        return {
            (family.type, sample.name, *sorted(sample.labels.items()), sample.value)
            for family in families
            for sample in family.samples
        }

    assert samples(told) == samples(read_metrics(write_metrics(add_up([told]))))


def test_the_gone_are_counted_on() -> None:
    """Of a process that has ended, what it had counted stays, and what was the case does not."""
    metrics = Metrics()
    metrics.documents.inc(5)
    metrics.in_flight.set(5)
    gone = lasting(_told(metrics))
    told = add_up([_told(Metrics()), gone])

    assert _value(told, "shelfrank_documents_total") == 5
    assert _value(told, "shelfrank_in_flight_requests") == 0
    assert _value(told, "shelfrank_processes") == 1
    assert add_up([gone, []]) != []


def test_nothing_adds_up_to_nothing() -> None:
    """No parts and empty parts are no metrics."""
    assert [] == add_up([]) == add_up([[], read_metrics(b"")])


def test_some_gauges_are_means() -> None:
    """An agreement of 0.4 in one process and 0.8 in another is one of 0.6."""
    text = b"# TYPE shelfrank_canary_kendall_tau gauge\nshelfrank_canary_kendall_tau %s\n"
    told = add_up([read_metrics(text % value) for value in (b"0.4", b"0.8")])

    assert _value(told, "shelfrank_canary_kendall_tau") == pytest.approx(0.6)


def test_it_is_decided_of_every_gauge_how_it_adds_up() -> None:
    """A new gauge has to say whether the sum, the largest or the mean of its processes is told."""
    documented = re.findall(
        r"^\| `(shelfrank_\w+)` \| gauge ", (ROOT / "docs" / "operations.md").read_text("utf-8"), re.MULTILINE
    )
    gauges = {family.name for family in _told(Metrics()) if family.type not in LASTING} | set(documented)

    assert gauges == LARGEST | MEAN | SUMS
    assert len(gauges) == len(LARGEST) + len(MEAN) + len(SUMS)
