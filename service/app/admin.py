"""The second listener's application: metrics and health, and where admin calls have their place.

Knows paths and the shape of an error; does not know what is served.
Invariant: nothing here is on the public port but health, and nothing here waits behind ranking.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from service.errors import ClientDisconnected, Reason, Refused
from service.http.middleware import JsonResponse, RequestMiddleware, context_of, error_response
from service.process.lifecycle import Lifecycle
from service.telemetry.metrics import Metrics

Handler = Callable[[Request], Awaitable[Response]]


def build_admin(health: Lifecycle, metrics: Metrics, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application, to which `routes` are added."""

    async def show(request: Request) -> Response:  # noqa: ARG001  as Starlette calls it
        text = await asyncio.to_thread(generate_latest, metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    app = Starlette(
        routes=[
            Route("/metrics", show, methods=["GET"]),
            *(Route(path, handler, methods=["GET"]) for path, handler in health_handlers(health).items()),
            *routes,
        ],
        exception_handlers={HTTPException: _not_routed, Refused: _refused, ClientDisconnected: _client_gone},
    )
    app.router.redirect_slashes = False
    app.add_middleware(RequestMiddleware, metrics=metrics)
    return app


def health_handlers(health: Lifecycle) -> dict[str, Handler]:
    """Return the health handlers of either listener by path; they wait for nothing."""

    async def livez(request: Request) -> Response:
        """Say that the event loop turns, and that no worker hangs."""
        if not health.is_alive:
            return error_response(Reason.NOT_READY, context_of(request).id)
        return JsonResponse(b'{"status":"alive"}')

    async def readyz(request: Request) -> Response:
        """Say whether requests should be sent here: 503 while starting or draining, or if a worker died or hangs."""
        if not health.is_ready:
            return error_response(Reason.NOT_READY, context_of(request).id)
        return JsonResponse(b'{"status":"ready"}')

    async def healthz(request: Request) -> Response:
        """Say the same as `readyz`, in the words of vLLM, TEI, llama.cpp and infinity."""
        if not health.is_ready:
            return error_response(Reason.NOT_READY, context_of(request).id)
        return JsonResponse(b'{"status":"ok","unix":%d}' % time.time())

    return {"/livez": livez, "/readyz": readyz, "/health": healthz}


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = Reason.METHOD_NOT_ALLOWED if error.status_code == 405 else Reason.NOT_FOUND
    return error_response(reason, context_of(request).id, headers=error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error_response(error.reason, context_of(request).id, error.loc)


async def _client_gone(request: Request, error: Exception) -> Response:  # noqa: ARG001  as Starlette calls it
    return Response(status_code=499)
