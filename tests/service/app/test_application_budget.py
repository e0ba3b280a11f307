"""Tests of budgets, priorities and failing over HTTP, on a fake engine that can be held up."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.app.application import build_app
from service.domain.ranking import LEAST
from service.rollout.versions import Version, Versions
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.support import (
    JSON,
    WAIT_S,
    Answer,
    FakeSession,
    Served,
    exchange,
    fake_app,
    fake_bench,
    rerank,
    until,
)

QUERY = {"query": "red shoes", "documents": [f"red shoes number {number}" for number in range(6)]}
SHORT_MS = 60.0


class Held:
    """An application whose one engine waits at a gate."""

    def __init__(self, root: Path, *, is_open: bool = False) -> None:
        self.gate = threading.Event()
        if is_open:
            self.gate.set()
        self.session = FakeSession(gate=self.gate)
        told = Settings(tenants="web=3", default_budget_ms=30_000, cache_bytes=0)
        bench = fake_bench(root, self.session, weights=told.tenant_weights)
        self.model = bench.model
        self.served = Served(build_app(told, Versions(Version(bench.model)), bench.scorer, Metrics()))

    def learn(self, row_s: float) -> None:
        """Have the model's costs learnt from an engine that takes so long for each row."""
        for rows in (1, 2, 4, 8) * 50:
            self.model.costs.observe(8 * rows, rows, row_s * rows)

    def post(self, **fields: object) -> Answer:
        """Ask for a ranking."""
        return self.served.post({**QUERY, **fields})

    def post_with(self, headers: dict[str, str], path: str = "/v1/rerank", **fields: object) -> Answer:
        """Ask for a ranking with headers, which may be in another dialect."""
        body = json.dumps(fields or QUERY).encode()
        return self.served.run(exchange(self.served.app, "POST", path, body, {**JSON, **headers}))


@pytest.fixture
def held(tiny_bundle: Path) -> Iterator[Held]:
    """An application whose engine waits until the gate is opened, at the latest at the end of the test."""
    held = Held(tiny_bundle)
    with held.served:
        yield held
        held.gate.set()


def test_the_answer_comes_when_the_budget_is_over(held: Held) -> None:
    """With an engine that hangs, every document comes back in the order of the request, with a falling score."""
    began_s = time.monotonic()
    told = held.post(budget_ms=SHORT_MS)
    took_s = time.monotonic() - began_s

    assert (200, "deadline") == (told.status, told.headers["x-degraded"])
    assert ("deadline", 0.0) == (told.json["degraded"], told.json["coverage"])
    assert list(range(6)) == [result["index"] for result in told.json["results"]]
    scores = [result["relevance_score"] for result in told.json["results"]]
    assert LEAST > scores[0] > scores[-1] > 0
    assert SHORT_MS / 1_000 / 2 < took_s < WAIT_S / 2


def test_the_header_is_a_budget_too(held: Held) -> None:
    """Dialects whose bodies have no budget send it as a header."""
    told = held.post_with(
        {"x-budget-ms": str(SHORT_MS)}, "/rerank", query="red", texts=["red shoes", "a mug"]
    )

    assert (200, "deadline") == (told.status, told.headers["x-degraded"])


def test_a_request_may_rather_have_an_error(held: Held) -> None:
    """`on_failure: error` turns a late ranking into a 504, in the body or as a header."""
    by_body = held.post(budget_ms=SHORT_MS, on_failure="error")
    by_header = held.post_with({"x-on-failure": "error", "x-budget-ms": str(SHORT_MS)})

    assert {(504, "deadline")} == {(each.status, each.json["error"]) for each in (by_body, by_header)}


@pytest.mark.parametrize(
    ("name", "value"), [("x-budget-ms", "soon"), ("x-priority", "now"), ("x-on-failure", "cry")]
)
def test_a_senseless_header_is_refused(held: Held, name: str, value: str) -> None:
    """The error names the header."""
    told = held.post_with({name: value})

    assert (422, "invalid_field", [name]) == (told.status, told.json["error"], told.json["loc"])


@pytest.mark.parametrize("field", [{"budget_ms": "5"}, {"priority": "now"}, {"on_failure": "cry"}])
def test_a_senseless_field_is_refused(held: Held, field: dict[str, object]) -> None:
    """The error names the field."""
    told = held.post(**field)

    assert (422, "invalid_field", list(field)) == (told.status, told.json["error"], told.json["loc"])


def test_what_does_not_fit_is_not_begun(tiny_bundle: Path) -> None:
    """Of a list that is predicted to take longer than its budget the first documents are scored, and the rest is last."""
    held = Held(tiny_bundle, is_open=True)
    held.learn(row_s=0.01)
    requested_terms = {"documents": ["red shoes"] * 100, "budget_ms": 300}
    with held.served:
        told = held.post(**requested_terms).json
        count = sum(rows for rows, _ in held.session.runs)
        refused = held.post(**requested_terms, on_failure="error")

    assert 0 < count < 60
    assert ("deadline", count / 100) == (told["degraded"], told["coverage"])
    assert set(range(count)) == {result["index"] for result in told["results"][:count]}
    assert list(range(count, 100)) == [result["index"] for result in told["results"][count:]]
    assert (504, count) == (refused.status, sum(rows for rows, _ in held.session.runs))


def test_behind_a_long_queue_nothing_is_begun(held: Held) -> None:
    """A request that would wait longer than its budget is answered at once: unscored, or with 429 and when to return."""
    held.learn(row_s=1.0)
    app = held.served.app

    async def ask() -> tuple[Answer, Answer, float]:
        waiting = asyncio.create_task(rerank(app, QUERY))
        await until(lambda: bool(held.session.runs))
        began_s = time.monotonic()
        one = {**QUERY, "documents": ["red shoes"], "budget_ms": 3_000}
        degraded = await rerank(app, one)
        refused = await rerank(app, {**one, "on_failure": "error"})
        took_s = time.monotonic() - began_s
        held.gate.set()
        await waiting
        return degraded, refused, took_s

    degraded, refused, took_s = held.served.run(ask())

    assert ("overload", 0.0) == (degraded.json["degraded"], degraded.json["coverage"])
    assert (429, "overloaded") == (refused.status, refused.json["error"])
    assert "retry-after" in refused.headers
    assert took_s < 2.0


def test_an_engine_failure_may_be_an_error(tiny_bundle: Path) -> None:
    """What the engine cannot score is a 503 for those who rather have an error."""
    broken = FakeSession(nonfinite=lambda row: True)  # noqa: ARG005 - whatever the row is
    with Served(fake_app(tiny_bundle, broken)) as served:
        told = served.post({**QUERY, "on_failure": "error"})

    assert (503, "unscored") == (told.status, told.json["error"])


def test_priorities_and_tenants_are_counted(held: Held) -> None:
    """A request tells its priority in words or as a place, and its tenant in a header."""
    held.gate.set()
    answers = [held.post(priority=priority) for priority in ("offline", 2, "autocomplete", 1, "search", 0)]
    by_header = held.post_with({"x-priority": "offline", "x-tenant": "web"})

    assert {200} == {each.status for each in (*answers, by_header)}
    counts = {
        priority: held.served.metric("shelfrank_admitted_total", priority=priority, decision="all")
        for priority in ("search", "autocomplete", "offline")
    }
    assert {"search": 2.0, "autocomplete": 2.0, "offline": 3.0} == counts
