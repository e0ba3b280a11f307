"""The outermost layer: gives each request an id and a clock, counts its answer, and catches what is left.

Knows ASGI messages, the error shape and how paths are written; does not know routes or JSON bodies.
Invariant: every answer carries a request id, and no exception's text reaches a client or a log line.
"""

import logging
import re
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.schema import error_body
from service.errors import Location, Reason
from service.telemetry.logs import event
from service.telemetry.metrics import OTHER, Metrics

REQUEST_ID: Final = b"x-request-id"
_ACCEPTED_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FIRST_BYTE: Final = (
    "shelfrank.first_byte_s"  # where in a scope the server notes when the request's first byte came
)
PRODUCT_PREFIX: Final = "/v1/products/"
"""What follows is an id, in which slashes mean what they mean to the catalogue."""
_SLASHES: Final = re.compile("/{2,}")
_SCOPE_KEY: Final = "shelfrank.context"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Id and start of a request, the latter in monotonic seconds: its first byte, if the server noted when that came."""

    id: str
    started_s: float


def context_of(request: HTTPConnection) -> RequestContext:
    """Return the trace that `RequestMiddleware` gave to a request."""
    context: RequestContext = request.scope[_SCOPE_KEY]
    return context


class JsonResponse(Response):
    """Bytes that are JSON already."""

    media_type = "application/json"


def error_response(
    reason: Reason,
    request_id: str,
    loc: Location = (),
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:
    """Return the answer to a refused request."""
    return JsonResponse(error_body(reason, loc, request_id), status_code=reason.status, headers=headers)


def to_route(scope: Scope) -> Scope:
    """Return a request as it is routed: doubled and trailing slashes left out, and GET in the place of HEAD.

    The server's own scope keeps HEAD, by which it leaves out the body of the answer.
    """
    path: str = scope["path"]
    is_plain = "//" not in path and (not path.endswith("/") or path == "/")
    if not is_plain and not (path.startswith(PRODUCT_PREFIX) and path != PRODUCT_PREFIX):
        scope = {**scope, "path": _SLASHES.sub("/", path).removesuffix("/") or "/"}
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; everything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = to_route(scope)
        started_s: float = scope.get(FIRST_BYTE) or time.monotonic()
        context = scope[_SCOPE_KEY] = RequestContext(_request_id(scope), started_s)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, context.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001  the HTTP edge's broad catch: counted, and logged
            self._metrics.rejected.labels(Reason.INTERNAL.code).inc()
            event(
                "internal_error",
                logging.ERROR,
                id=context.id,
                kind=type(error).__name__,
                at=_raised_at(error),
            )
            if status:  # too late to say so: end the connection, without the error's text in another log
                raise ConnectionAbortedError("the answer was cut short") from None
            await error_response(Reason.INTERNAL, context.id)(scope, receive, send_with_id)
        finally:
            path = getattr(scope.get("route"), "path", scope["path"])  # a route's pattern, if one was found
            route = path if path in self._metrics.routes else OTHER
            self._metrics.requests.labels(route, f"{status // 100}xx").inc()


def _request_id(scope: Scope) -> str:
    """Take over the client's request id if it is a short plain word, or make one."""
    given = [value for name, value in scope["headers"] if name == REQUEST_ID]
    if len(given) == 1 and _ACCEPTED_ID.fullmatch(given[0]):
        return str(given[0], "ascii")
    return uuid.uuid4().hex


def _raised_at(error: Exception) -> str:
    """Where an error was raised; its message may hold what a client sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.name}:{frame.lineno}"
