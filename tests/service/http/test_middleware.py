"""Tests of service/http/middleware.py."""

import asyncio
import json
import time
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from service.http.middleware import FIRST_BYTE, RequestMiddleware, context_of, to_route
from service.telemetry.metrics import Metrics
from tests.service.support import JSON, Served

GOOD = {"query": "red shoes", "documents": ["red shoes"]}


@pytest.mark.parametrize("given", ["a", "Az0._-", "x" * 64, "7f1c-9"])
def test_a_plain_request_id_is_taken_over(served: Served, given: str) -> None:
    """A short plain word comes back in the header and in the body."""
    answer = served.post(GOOD, {**JSON, "x-request-id": given})

    assert (given, given) == (answer.headers["x-request-id"], answer.json["id"])


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "-a", "a\nb", "é", "a,b", "<script>", "{}"])
def test_another_request_id_is_replaced(served: Served, given: str) -> None:
    """What is no short plain word does not come back; an id is made instead."""
    answer = served.post(GOOD, {**JSON, "x-request-id": given})

    assert given != answer.headers["x-request-id"] == answer.json["id"]
    assert len(answer.json["id"]) == 32


def test_made_ids_differ(served: Served) -> None:
    """Every request has an id of its own, refused ones too."""
    answers = [served.post(GOOD), served.post(GOOD), served.post(b""), served.get("/nowhere")]

    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def _call(app: Any, metrics: Metrics, noted: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Send a request through an Edge around `app`; return what was sent back."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/v1/rerank", "headers": [], **(noted or {})}
    asyncio.run(RequestMiddleware(app, metrics)(scope, receive, send))
    return sent


def _count(metrics: Metrics, status: str) -> float | None:
    labels = {"route": "/v1/rerank", "status": status}
    return metrics.registry.get_sample_value("shelfrank_requests_total", labels)


def _bugs(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("shelfrank_rejected_total", {"reason": "internal"})


def test_a_bug_is_a_500_without_its_text(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception becomes the documented error; its message, which may hold a client's text, goes nowhere."""

    async def buggy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - as ASGI calls it
        raise ValueError("secret text")

    metrics = Metrics()
    metrics.count_routes(["/v1/rerank"])
    start, body = _call(buggy, metrics)
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records) + capsys.readouterr().err

    assert start["status"] == 500
    assert json.loads(body["body"])["error"] == "internal"
    assert "secret" not in logged + body["body"].decode()
    assert _count(metrics, "5xx") == 1
    assert _bugs(metrics) == 1


def test_a_bug_after_the_start_ends_the_connection() -> None:
    """If the answer has begun, the server is made to close the connection, without the error's text."""

    async def buggy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - as ASGI calls it
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("secret text")

    metrics = Metrics()
    with pytest.raises(ConnectionAbortedError) as caught:
        _call(buggy, metrics)
    assert _bugs(metrics) == 1
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_answers_are_counted_by_route_and_class(served: Served) -> None:
    """Each answer counts once, under a known route or under `other`."""

    def count(route: str, status: str) -> float:
        return served.metric("shelfrank_requests_total", route=route, status=status)

    before = count("/v1/rerank", "2xx"), count("/v1/rerank", "4xx"), count("other", "4xx")
    served.post(GOOD)
    served.post(b"")
    served.get("/nowhere")

    assert before == (
        count("/v1/rerank", "2xx") - 1,
        count("/v1/rerank", "4xx") - 1,
        count("other", "4xx") - 1,
    )


def test_a_request_begins_with_its_first_byte() -> None:
    """Where the server has noted the first byte, time counts from there; elsewhere from now."""
    started: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append(context_of(Request(scope)).started_s)
        await Response()(scope, receive, send)

    _call(app, Metrics(), {FIRST_BYTE: 12.5})
    before_s = time.monotonic()
    _call(app, Metrics(), {})

    assert started[0] == 12.5
    assert before_s <= started[1] <= time.monotonic()


@pytest.mark.parametrize(
    ("path", "routed"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1/rerank", "/v1/rerank"),
        ("/v1/rerank/", "/v1/rerank"),
        ("//v1///rerank//", "/v1/rerank"),
        ("/v1/products/", "/v1/products"),
        ("/v1/products/http://shop/1/", "/v1/products/http://shop/1/"),
        ("/v1/products//", "/v1/products//"),
    ],
)
def test_slashes_too_many_mean_nothing(path: str, routed: str) -> None:
    """Doubled and trailing slashes are left out, but for those of a product's id."""
    scope = {"type": "http", "method": "GET", "path": path}

    assert routed == to_route(scope)["path"]
    assert path == scope["path"]


def test_head_is_routed_as_get() -> None:
    """HEAD finds what GET finds, and the server still knows that there is to be no body."""
    scope = {"type": "http", "method": "HEAD", "path": "/livez"}

    assert ("GET", "HEAD") == (to_route(scope)["method"], scope["method"])
