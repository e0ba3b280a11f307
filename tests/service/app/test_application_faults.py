"""Tests of service/app/application.py on fake engines that are stuck, fail or die."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from service.app.handlers import Api
from service.domain.ranking import LEAST
from service.rollout.versions import Versions
from tests.service.support import (
    JSON,
    Answer,
    FakeSession,
    Served,
    exchange,
    fake_app,
    is_documented_error,
    rerank,
    until,
)

GOOD = {"query": "red shoes", "documents": ["coffee mug", "red running shoes", "red shoes"]}


def test_a_full_queue_refuses_at_once_and_recovers(tiny_bundle: Path) -> None:
    """While the engine is stuck, what exceeds the queue gets 429 without waiting; later all is well."""
    gate = threading.Event()
    session = FakeSession(gate=gate)
    documents = ["red shoes " * 20] * 40  # about 1,900 predicted tokens, so that one fits and two do not

    async def flood(served: Served) -> tuple[list[Answer], float]:
        first = asyncio.create_task(rerank(served.app, {"query": "red", "documents": documents}))
        await until(lambda: bool(session.runs))
        began_s = time.monotonic()
        refused = [await rerank(served.app, {"query": "red", "documents": documents}) for _ in range(50)]
        took_s = time.monotonic() - began_s
        gate.set()
        return [await first, *refused], took_s

    with Served(fake_app(tiny_bundle, session, queue_tokens=2_000)) as served:
        (first, *refused), took_s = served.run(flood(served))

        assert first.status == 200
        assert {(429, "overloaded", "1")} == {
            (answer.status, answer.json["error"], answer.headers["retry-after"]) for answer in refused
        }
        assert took_s < 5
        assert served.metric("shelfrank_rejected_total", reason="overloaded") == 50
        assert served.metric("shelfrank_queue_tokens") == 0
        assert served.post(GOOD).status == 200


def test_a_client_that_hangs_up_frees_its_place(tiny_bundle: Path) -> None:
    """Requests whose clients left while they waited are never computed, and their tokens are released."""
    gate = threading.Event()
    session = FakeSession(gate=gate)

    async def leave(served: Served) -> Answer:
        first = asyncio.create_task(rerank(served.app, GOOD))
        await until(lambda: bool(session.runs))
        hung_up = asyncio.Event()
        body = json.dumps(GOOD).encode()
        leaving = [
            asyncio.create_task(exchange(served.app, "POST", "/v1/rerank", body, JSON, hung_up))
            for _ in range(100)
        ]
        await until(lambda: served.metric("shelfrank_in_flight_requests") == 101)
        hung_up.set()
        assert {499} == {answer.status for answer in await asyncio.gather(*leaving)}
        held = served.metric("shelfrank_queue_tokens")
        gate.set()
        answer = await first
        assert held < 101
        return answer

    with Served(fake_app(tiny_bundle, session)) as served:
        assert served.run(leave(served)).status == 200
        computed = len(session.runs)
        assert served.post(GOOD).status == 200
        assert len(session.runs) == 2 * computed
        assert served.metric("shelfrank_dropped_jobs_total") == 100


def test_an_unscored_document_is_told(tiny_bundle: Path) -> None:
    """A row the engine cannot score comes last with the least scores, no label, and a degraded answer of status 200."""
    broken = FakeSession(nonfinite=lambda row: True)  # noqa: ARG005 - whatever the row is
    with Served(fake_app(tiny_bundle, broken)) as served:
        told = served.post(GOOD)

        assert ("nonfinite", 0.0) == (told.json["degraded"], told.json["coverage"])
        assert [(0, None), (1, None), (2, None)] == [
            (result["index"], result["label"]) for result in told.json["results"]
        ]
        scores = [result["relevance_score"] for result in told.json["results"]]
        assert LEAST > scores[0] > scores[1] > scores[2] > 0
        assert b"e-" not in told.body
        assert served.metric("shelfrank_unscored_documents_total", reason="nonfinite") == 3


def test_readiness_follows_the_life_of_the_service(tiny_bundle: Path) -> None:
    """Before start-up and while draining /readyz is red; /livez is green throughout; draining still serves."""
    app = fake_app(tiny_bundle, FakeSession())
    before = asyncio.run(exchange(app, "GET", "/readyz"))
    early = asyncio.run(rerank(app, GOOD))

    assert (503, "not_ready") == (before.status, before.json["error"])
    assert (503, "not_ready") == (early.status, early.json["error"])
    with Served(app) as served:
        assert served.get("/readyz").status == 200
        app.state.lifecycle.drain()
        assert (503, 200, 200) == (
            served.get("/readyz").status,
            served.get("/livez").status,
            served.post(GOOD).status,
        )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is the fault
def test_a_dead_worker_turns_readiness_red(tiny_bundle: Path) -> None:
    """If a worker thread ends, by whatever cause, /readyz is red."""

    class Deadly(FakeSession):
        def run(self, feeds: Any, /) -> Any:  # noqa: ARG002 - as the class it extends
            raise SystemExit  # ends a thread silently, past every `except Exception`

    app = fake_app(tiny_bundle, Deadly(), FakeSession())

    async def kill(served: Served) -> None:
        doomed = asyncio.create_task(rerank(served.app, GOOD))
        await until(lambda: served.metric("shelfrank_workers") == 1)
        doomed.cancel()
        await asyncio.wait([doomed])

    with Served(app) as served:
        served.run(kill(served))
        assert served.get("/readyz").status == 503
        assert served.get("/livez").status == 200


@pytest.mark.parametrize(
    ("method", "path", "broken"),
    [
        ("POST", "/v1/rerank", (Api, "_answer")),
        ("POST", "/v1/explain", (Api, "_answer")),
        ("POST", "/v2/rerank", (Api, "_answer")),
        ("GET", "/v1/models", (Versions, "list_json")),
        ("GET", "/admin/models", (Versions, "roles")),
    ],
)
def test_a_bug_has_the_documented_shape_on_every_path(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, broken: tuple[type, str]
) -> None:
    """A bug is a 500 in our own shape, counted once, with the framework in between or not, on either port."""

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    with Served(fake_app(tiny_bundle, FakeSession())) as served:
        app = served.app.state.admin if path.startswith("/admin") else served.app
        monkeypatch.setattr(*broken, bug)
        answer = served.run(exchange(app, method, path, json.dumps(GOOD).encode(), JSON))

        assert (500, "internal") == (answer.status, answer.json["error"])
        assert is_documented_error(answer)
        assert served.metric("shelfrank_rejected_total", reason="internal") == 1
