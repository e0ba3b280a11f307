"""Tests of service/metrics.py."""

import re

import pytest
from prometheus_client import generate_latest

from service.metrics import ROUTES, Metrics
from tests.service.support import ROOT, Served

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

    before = count()
    for number in range(50):
        served.get(f"/nowhere/{number}")
        served.post({"query": "q", "documents": ["a"], "model": f"m{number}"})
        served.post({"query": "q", "documents": ["a"]}, {"content-type": f"text/x{number}"})

    assert before == count()


def test_the_routes_are_the_applications(served: Served) -> None:
    """The closed set of route labels is the set of routes that the application has."""
    assert set(ROUTES) == {route.path for route in served.app.routes}


def test_a_scrape_tells_what_is_served(served: Served) -> None:
    """/metrics is Prometheus's text format and names the bundle, the workers and the readiness."""
    answer = served.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b'name="tiny"' in answer.body
    assert served.metric("shelfrank_workers") == 2
    assert served.metric("shelfrank_ready") == 1
    assert b"_created" not in answer.body
