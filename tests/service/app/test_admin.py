"""Tests of service/app/admin.py."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.app.admin import build_admin
from service.errors import ClientDisconnected, Reason, Refused
from service.process.lifecycle import Lifecycle
from service.telemetry.metrics import Metrics
from tests.service.support import Answer, Served, exchange, is_documented_error


def _get(app: Starlette, path: str, method: str = "GET") -> Answer:
    return asyncio.run(exchange(app, method, path))  # type: ignore[arg-type]


def test_metrics_are_on_the_second_port_alone(served: Served) -> None:
    """The admin application has /metrics; the public one has nothing there."""
    told = served.run(exchange(served.app.state.admin, "GET", "/metrics"))

    assert told.status == 200
    assert told.headers["content-type"].startswith("text/plain; version=")
    assert b"\nshelfrank_requests_total{" in told.body
    assert served.get("/metrics").status == 404


@pytest.mark.parametrize("path", ["/v1/rerank", "/", "/docs", "/metrics/x"])
def test_what_is_public_is_not_here(served: Served, path: str) -> None:
    """The second port answers nothing of the first but health, with the documented error."""
    answer = served.run(exchange(served.app.state.admin, "GET", path))

    assert answer.status == 404
    assert is_documented_error(answer)


def test_health_is_on_both() -> None:
    """Before the start and in a drain readiness is red here too, and the service is alive all the time."""
    lifecycle = Lifecycle()
    app = build_admin(lifecycle, Metrics())
    told = []
    for step in (lambda: None, lifecycle.started, lifecycle.drain):
        step()
        told.append((_get(app, "/readyz").status, _get(app, "/livez").status))

    assert [(503, 200), (200, 200), (503, 200)] == told


def test_routes_are_added_and_may_refuse() -> None:
    """What is added is served here, and its refusals have the documented shape."""

    async def refuse(request: Request) -> Response:  # noqa: ARG001 - as Starlette calls it
        raise Refused(Reason.INVALID_FIELD, ("model",))

    async def leave(request: Request) -> Response:  # noqa: ARG001 - as above
        raise ClientDisconnected

    routes = [Route("/admin/a", refuse, methods=["POST"]), Route("/admin/b", leave, methods=["POST"])]
    app = build_admin(Lifecycle(), Metrics(), routes=routes)
    answer = _get(app, "/admin/a", "POST")

    assert (422, "invalid_field", ["model"]) == (answer.status, answer.json["error"], answer.json["loc"])
    assert (405, 499) == (_get(app, "/admin/a").status, _get(app, "/admin/b", "POST").status)
