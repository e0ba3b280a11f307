"""An application with layers before the framework, the innermost of which answers one path without it.

Knows ASGI and what a handler may raise; does not know bodies, keys or answers.
Invariant: a request is answered as the framework's own route, which still stands in the schema, would answer it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handle = Callable[[Request], Awaitable[Response]]
OnError = Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]
METHOD: Final = "POST"


class Application(FastAPI):
    """FastAPI with layers before it; its own middleware would stand behind three layers of the framework."""

    def __init__(self, **settings: Any) -> None:
        """Take the settings of FastAPI."""
        super().__init__(**settings)
        self._layers: ASGIApp = super().__call__

    def put_before(self, layer: Callable[..., ASGIApp], **settings: Any) -> None:
        """Have ASGI middleware see every request first, before the layers that are there already."""
        self._layers = layer(self._layers, **settings)

    def build_middleware_stack(self) -> ASGIApp:
        """Build the framework's layers without its last catch, which would answer in plain text before `Edge` can."""
        catch = super().build_middleware_stack()
        assert isinstance(catch, ServerErrorMiddleware), "the framework's outermost layer is another one"
        return catch.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; what is not HTTP is the framework's."""
        await (self._layers if scope["type"] == "http" else super().__call__)(scope, receive, send)


class Direct:
    """ASGI middleware, the innermost; `on_error` answers what `handle` raises, by its exact type.

    Matching routes, stacks for dependencies that there are none of and two layers of error handling cost a tenth of a
    millisecond, more than reading the request does.
    """

    def __init__(self, app: ASGIApp, path: str, handle: Handle, on_error: OnError) -> None:
        self._app = app
        self._path = path
        self._handle = handle
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of the path; everything else goes on to the framework."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != METHOD:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await self._handle(request)
        except tuple(self._on_error) as error:
            response = await self._on_error[type(error)](request, error)
        await response(scope, receive, send)
