"""Tests of service/telemetry/metrics.py."""

import logging
import re
from itertools import pairwise

import pytest
from prometheus_client import generate_latest

from service.telemetry.logs import configure_logs
from service.telemetry.meters import STAGES
from service.telemetry.metrics import SECONDS, Metrics
from tests.service.support import ROOT, Served, exchange

NAMES = Metrics().names()
TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_documented(name: str) -> None:
    """docs/operations.md has a row for every metric."""
    assert f"| `{name}` |" in TEXT


def test_no_other_metric_is_documented() -> None:
    """docs/operations.md does not describe metrics that no longer exist."""
    assert set(NAMES) == set(re.findall(r"^\| `(shelfrank_\w+)` \|", TEXT, re.MULTILINE))


def test_requests_add_no_series(served: Served) -> None:
    """However odd paths, ids and bodies are, the number of series stays what it was at the start."""
    registry = served.app.state.metrics.registry

    def count() -> int:
        lines = generate_latest(registry).decode().splitlines()
        return sum(line.startswith("shelfrank_") for line in lines)

    served.post({"query": "q", "documents": ["a"]})  # the drift gauges need a document to speak of
    before = count()
    for number in range(50):
        served.get(f"/nowhere/{number}")
        served.post({"query": "q", "documents": ["a"], "model": f"m{number}"})
        served.post({"query": "q", "documents": ["a"]}, {"content-type": f"text/x{number}"})

    assert before == count()


def test_the_routes_are_the_applications(served: Served) -> None:
    """The closed set of route labels is the set of routes that both listeners have."""
    both = (*served.app.routes, *served.app.state.admin.routes)

    assert served.app.state.metrics.routes == {route.path for route in both}


def test_a_scrape_tells_what_is_served(served: Served) -> None:
    """/metrics is Prometheus's text format and names the bundle, the workers and the readiness."""
    answer = served.run(exchange(served.app.state.admin, "GET", "/metrics"))

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b'name="tiny"' in answer.body
    assert served.metric("shelfrank_workers") == 2
    assert served.metric("shelfrank_ready") == 1
    assert b"_created" not in answer.body


def test_every_stage_has_millisecond_buckets() -> None:
    """The stages and the whole are told apart to a millisecond or two where budgets are tens of milliseconds."""
    metrics = Metrics()
    for stage in STAGES:
        metrics.stages[stage].observe(0.0025)
        assert metrics.registry.get_sample_value("shelfrank_stage_seconds_count", {"stage": stage}) == 1
    near = [later - earlier for earlier, later in pairwise(SECONDS) if later <= 0.005]

    assert max(near) <= 0.002
    labels = {"stage": "infer", "le": "0.003"}
    assert metrics.registry.get_sample_value("shelfrank_stage_seconds_bucket", labels) == 1


def test_dropped_log_lines_are_a_metric() -> None:
    """What the log dropped is told at a scrape."""
    logger = logging.getLogger("shelfrank")
    before = logger.handlers, logger.level, logger.propagate
    configure_logs("json", "info")
    logger.handlers[0].listener.dropped = 7  # type: ignore[attr-defined]
    told = Metrics().registry.get_sample_value("shelfrank_log_lines_dropped_total")
    logger.handlers[0].close()
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])

    assert told == 7
