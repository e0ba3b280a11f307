"""The application: which path has which handler, and what stands before all of them.

Knows paths, methods and layers; does not know what a handler does.
Invariant: whatever a handler raises is counted and answered.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Lifespan

from service.app.about import About
from service.app.account import Account
from service.app.admin import build_admin, health_handlers
from service.app.handlers import SPOKEN, Api
from service.app.openapi import DESCRIPTION, with_schemas
from service.app.paths import FOREIGN, KSERVE, RERANK, RERANK_TOO, Tell, refuse_at
from service.app.products import ProductsApi
from service.app.rollout import RolloutApi
from service.boot import load_model, open_ranker
from service.dialects.dialect import Refuse
from service.errors import ClientGone, Reason, Refused
from service.http.keys import KeyRing, Locked
from service.http.middleware import Edge, JsonResponse, trace_of
from service.process.lifecycle import STUCK, Lifecycle
from service.rollout.opinions import SecondOpinions
from service.rollout.reload import Rollout
from service.rollout.versions import Versions
from service.scoring.scorer import Scorer
from service.scoring.watchdog import Watchdog
from service.settings import Settings
from service.telemetry.logs import event
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing

API_VERSION: Final = "1"
STOP_TIMEOUT_S: Final = 5.0
RETRY_AFTER: Final = {"retry-after": "1"}
CLIENT_CLOSED_REQUEST: Final = 499  # nobody sees it; it keeps the counts right

CHALLENGE: Final = {"www-authenticate": "Bearer"}
CORS_HEADERS: Final = (
    "authorization", "api-key", "content-type", "x-api-key", "x-budget-ms", "x-on-failure", "x-priority", "x-request-id",
)  # fmt: skip

Refusal = Callable[[Request, Refused, dict[str, str] | None], Response]


def build_app(
    settings: Settings, versions: Versions, scorer: Scorer, metrics: Metrics, tracing: Tracing | None = None
) -> FastAPI:
    """Return the application; its workers run from start-up to shutdown."""
    parts = _Parts(settings, versions, scorer, metrics, tracing)
    app = _new_app(settings, parts.lifespan)
    app.state.lifecycle, app.state.metrics, app.state.rollout = parts.lifecycle, metrics, parts.rollout
    admin_routes = RolloutApi(settings, versions, parts.rollout).routes()
    app.state.admin = build_admin(parts.lifecycle, metrics, routes=admin_routes)
    versions.show(metrics)
    api = Api(
        settings,
        versions,
        scorer,
        metrics,
        ranker=parts.ranker,
        account=Account(metrics, tracing),
        opinions=parts.opinions,
        lifecycle=parts.lifecycle,
    )
    _add_own_routes(app, api, parts.products, parts.lifecycle)
    _add_foreign_routes(app, api, About(settings, versions, parts.lifecycle))
    refuse = _refusal(metrics)
    _add_error_handlers(app, refuse)
    _add_middleware(app, settings, metrics, parts.ring, refuse)
    metrics.count_routes(route.path for route in (*app.routes, *app.state.admin.routes))
    app.openapi = with_schemas(app.openapi)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


class _Parts:
    """What lives as long as the application does, and how it starts and ends."""

    def __init__(
        self,
        settings: Settings,
        versions: Versions,
        scorer: Scorer,
        metrics: Metrics,
        tracing: Tracing | None,
    ) -> None:
        self._leaves_if_stuck = settings.watchdog_exit
        self._pool, self._tracing = scorer.pool, tracing
        self._watchdog = Watchdog(scorer.pool, settings.watchdog_s, metrics)
        self.lifecycle = Lifecycle(lambda: self._watchdog.verdict)
        self.ring = KeyRing(Path(settings.api_keys_file), metrics) if settings.api_keys_file else None
        self.rollout = Rollout(versions, metrics, lambda directory: load_model(directory, settings))
        self.ranker, self._stores = open_ranker(settings, scorer, metrics)
        self.products = ProductsApi(settings, self._stores.catalogue, versions)
        self.opinions = SecondOpinions(
            settings,
            versions,
            metrics,
            rank=self.ranker.rank,
            backlog_s=lambda: scorer.pool.backlog_s,
            end_canary=self.rollout.abort,
        )

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG002  as FastAPI calls it
        """Run the workers and what watches over them, and close everything at the end."""
        self._pool.start()
        self.lifecycle.started()
        await self._stores.connect()
        watches = [self._watchdog.watch(self._on_stuck), self.rollout.watch(), self.products.keep_up()]
        if self.ring is not None:
            watches.append(self.ring.watch())
        watchers = [asyncio.create_task(watch) for watch in watches]
        yield
        for watcher in watchers:
            watcher.cancel()
        self.opinions.close()
        await asyncio.to_thread(self._pool.stop, STOP_TIMEOUT_S)
        await self._stores.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    def _on_stuck(self) -> None:
        if self._leaves_if_stuck:
            self.lifecycle.drain(STUCK)


def _new_app(settings: Settings, lifespan: Lifespan[FastAPI]) -> FastAPI:
    return FastAPI(
        title="shelfrank",
        version=API_VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )


def _add_own_routes(app: FastAPI, api: Api, products: ProductsApi, lifecycle: Lifecycle) -> None:
    app.add_api_route(RERANK, api.rerank, methods=["POST"])
    app.add_api_route("/v1/explain", api.explain, methods=["POST"])
    for path, handle, method in (
        ("/v1/products", products.put, "PUT"),
        ("/v1/products", products.delete_many, "DELETE"),
        ("/v1/products/{product:path}", products.get, "GET"),
        ("/v1/products/{product:path}", products.delete, "DELETE"),
    ):
        app.add_api_route(path, handle, methods=[method])
    for path, told in health_handlers(lifecycle).items():
        app.add_api_route(path, told, methods=["GET"])
    for path, handler in (
        ("/", api.info),
        ("/v1/models", api.models),
        ("/v1/models/{model}", api.model),
    ):
        app.add_api_route(path, handler, methods=["GET"])


def _add_foreign_routes(app: FastAPI, api: Api, about: About) -> None:
    """Add the paths of other APIs; their shapes are described by those who made them, not by our schema."""

    def speaking(tell: Tell) -> Callable[[Request], Awaitable[Response]]:
        async def speak(request: Request) -> Response:
            return await api.speak(request, tell)

        return speak

    routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
        *(("POST", path, api.rerank) for path in RERANK_TOO),
        *(("POST", path, speaking(tell)) for path, (tell, _) in FOREIGN.items()),
        ("GET", "/info", about.info),
        ("GET", "/version", about.version),
        ("GET", KSERVE, api.server_metadata),
        ("GET", f"{KSERVE}/health/live", api.live),
        ("GET", f"{KSERVE}/health/ready", api.ready),
        ("POST", f"{KSERVE}/repository/index", about.index),
        ("GET", f"{KSERVE}/models/stats", about.stats),
    ]
    for path in (f"{KSERVE}/models/{{model}}", f"{KSERVE}/models/{{model}}/versions/{{version}}"):
        routes += [
            ("GET", path, api.model_metadata),
            ("GET", f"{path}/ready", api.model_ready),
            ("GET", f"{path}/config", about.config),
            ("GET", f"{path}/stats", about.stats),
            ("POST", f"{path}/infer", api.infer),
        ]
    for method, path, handler in routes:
        app.add_api_route(path, handler, methods=[method], include_in_schema=False)


def _refusing(request: Request) -> Refuse:
    """Return how to refuse a request: as it has been told apart, or as its path says."""
    spoken: Refuse | None = request.scope.get(SPOKEN)
    return refuse_at(request.scope["path"], request.method) if spoken is None else spoken


def _refusal(metrics: Metrics) -> Refusal:
    """Return what counts a refusal and answers it in the dialect of its request."""

    def answer(request: Request, refusal: Refused, headers: dict[str, str] | None) -> Response:
        metrics.rejected.labels(refusal.reason.code).inc()
        status, body = _refusing(request)(refusal.reason, refusal.loc, trace_of(request).id)
        return JsonResponse(body, status_code=status, headers=headers)

    return answer


def _add_middleware(
    app: FastAPI, settings: Settings, metrics: Metrics, ring: KeyRing | None, refuse: Refusal
) -> None:
    """Put the layers around the routes, the innermost first; a preflight request carries no key."""

    def refuse_unknown(request: Request) -> Response:
        event("refused", id=trace_of(request).id, reason=Reason.UNAUTHENTICATED.code)
        return refuse(request, Refused(Reason.UNAUTHENTICATED), CHALLENGE)

    if ring is not None:
        app.add_middleware(Locked, ring=ring, refuse=refuse_unknown)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(","),
            allow_methods=["GET", "POST"],
            allow_headers=CORS_HEADERS,
            expose_headers=["x-request-id", "x-degraded", "retry-after"],
        )
    app.add_middleware(Edge, metrics=metrics)


def _add_error_handlers(app: FastAPI, answer: Refusal) -> None:
    """Say how what a handler raises is answered; a bug is left to `Edge`."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        event("refused", id=trace_of(request).id, reason=error.reason.code)
        comes_again = error.reason in {Reason.OVERLOADED, Reason.NOT_READY}
        return answer(request, error, RETRY_AFTER if comes_again else None)

    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = Reason.METHOD_NOT_ALLOWED if error.status_code == 405 else Reason.NOT_FOUND
        return answer(request, Refused(reason), dict(error.headers) if error.headers else None)

    async def client_gone(request: Request, error: Exception) -> Response:  # noqa: ARG001  as Starlette calls it
        event("client_gone", id=trace_of(request).id)
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(ClientGone, client_gone)
    app.add_exception_handler(HTTPException, not_routed)
