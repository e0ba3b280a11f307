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

from service.app.admin import build_admin, health_handlers
from service.app.handlers import ERROR_RENDERER, Api
from service.app.info import InfoApi
from service.app.openapi import DESCRIPTION, with_schemas
from service.app.paths import FOREIGN, KSERVE, RERANK, RERANK_TOO, DetectDialect, error_renderer_at
from service.app.products import ProductsApi
from service.app.recorder import RequestRecorder
from service.app.rollout import RolloutApi
from service.boot import load_model, open_ranker
from service.dialects.dialect import RenderError
from service.errors import ClientDisconnected, Reason, Refused
from service.http.keys import ApiKeyMiddleware, ApiKeys
from service.http.middleware import JsonResponse, RequestMiddleware, context_of
from service.process.lifecycle import STUCK, Lifecycle
from service.rollout.comparer import ModelComparer
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
CLIENT_CLOSED_REQUEST: Final = 499  # never sent, only counted

CHALLENGE: Final = {"www-authenticate": "Bearer"}
CORS_HEADERS: Final = (
    "authorization", "api-key", "content-type", "x-api-key", "x-budget-ms", "x-on-failure", "x-priority", "x-request-id",
)  # fmt: skip

RespondError = Callable[[Request, Refused, dict[str, str] | None], Response]


def build_app(
    settings: Settings, versions: Versions, scorer: Scorer, metrics: Metrics, tracing: Tracing | None = None
) -> FastAPI:
    """Return the application; its workers run from start-up to shutdown."""
    components = _Components(settings, versions, scorer, metrics, tracing)
    app = _new_app(settings, components.lifespan)
    app.state.lifecycle, app.state.metrics, app.state.rollout = (
        components.lifecycle,
        metrics,
        components.rollout,
    )
    admin_routes = RolloutApi(settings, versions, components.rollout).routes()
    app.state.admin = build_admin(components.lifecycle, metrics, routes=admin_routes)
    versions.report_to(metrics)
    api = Api(
        settings,
        versions,
        scorer,
        metrics,
        ranker=components.ranker,
        recorder=RequestRecorder(metrics, tracing),
        comparer=components.comparer,
        lifecycle=components.lifecycle,
    )
    _add_own_routes(app, api, components.products, components.lifecycle)
    _add_foreign_routes(app, api, InfoApi(settings, versions, components.lifecycle))
    respond_error = _error_responder(metrics)
    _add_error_handlers(app, respond_error)
    _add_middleware(app, settings, metrics, components.keys, respond_error)
    metrics.count_routes(route.path for route in (*app.routes, *app.state.admin.routes))
    app.openapi = with_schemas(app.openapi)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


class _Components:
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
        self.lifecycle = Lifecycle(lambda: self._watchdog.worker_health)
        self.keys = ApiKeys(Path(settings.api_keys_file), metrics) if settings.api_keys_file else None
        self.rollout = Rollout(versions, metrics, lambda directory: load_model(directory, settings))
        self.ranker, self._stores = open_ranker(settings, scorer, metrics)
        self.products = ProductsApi(settings, self._stores.catalogue, versions)
        self.comparer = ModelComparer(
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
        watches = [
            self._watchdog.watch(self._on_stuck),
            self.rollout.watch(),
            self.products.maintain_payloads(),
        ]
        if self.keys is not None:
            watches.append(self.keys.watch())
        watchers = [asyncio.create_task(watch) for watch in watches]
        yield
        for watcher in watchers:
            watcher.cancel()
        self.comparer.close()
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
    for path, health in health_handlers(lifecycle).items():
        app.add_api_route(path, health, methods=["GET"])
    for path, handler in (
        ("/", api.info),
        ("/v1/models", api.models),
        ("/v1/models/{model}", api.model),
    ):
        app.add_api_route(path, handler, methods=["GET"])


def _add_foreign_routes(app: FastAPI, api: Api, info: InfoApi) -> None:
    """Add the paths of other APIs; their shapes are described by those who made them, not by our schema."""

    def handler_of(detect: DetectDialect) -> Callable[[Request], Awaitable[Response]]:
        async def handle_dialect(request: Request) -> Response:
            return await api.handle_dialect(request, detect)

        return handle_dialect

    routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
        *(("POST", path, api.rerank) for path in RERANK_TOO),
        *(("POST", path, handler_of(detect)) for path, (detect, _) in FOREIGN.items()),
        ("GET", "/info", info.info),
        ("GET", "/version", info.version),
        ("GET", KSERVE, api.server_metadata),
        ("GET", f"{KSERVE}/health/live", api.live),
        ("GET", f"{KSERVE}/health/ready", api.ready),
        ("POST", f"{KSERVE}/repository/index", info.index),
        ("GET", f"{KSERVE}/models/stats", info.stats),
    ]
    for path in (f"{KSERVE}/models/{{model}}", f"{KSERVE}/models/{{model}}/versions/{{version}}"):
        routes += [
            ("GET", path, api.model_metadata),
            ("GET", f"{path}/ready", api.model_ready),
            ("GET", f"{path}/config", info.config),
            ("GET", f"{path}/stats", info.stats),
            ("POST", f"{path}/infer", api.infer),
        ]
    for method, path, handler in routes:
        app.add_api_route(path, handler, methods=[method], include_in_schema=False)


def _error_renderer(request: Request) -> RenderError:
    """Return how errors are written for a request: by its dialect if that is known, else by its path."""
    renderer: RenderError | None = request.scope.get(ERROR_RENDERER)
    return error_renderer_at(request.scope["path"], request.method) if renderer is None else renderer


def _error_responder(metrics: Metrics) -> RespondError:
    """Return a function that counts a refusal and answers it in the dialect of its request."""

    def respond_error(request: Request, refusal: Refused, headers: dict[str, str] | None) -> Response:
        metrics.rejected.labels(refusal.reason.code).inc()
        status, body = _error_renderer(request)(refusal.reason, refusal.loc, context_of(request).id)
        return JsonResponse(body, status_code=status, headers=headers)

    return respond_error


def _add_middleware(
    app: FastAPI, settings: Settings, metrics: Metrics, keys: ApiKeys | None, respond_error: RespondError
) -> None:
    """Put the layers around the routes, the innermost first; a preflight request carries no key."""

    def reject(request: Request) -> Response:
        event("refused", id=context_of(request).id, reason=Reason.UNAUTHENTICATED.code)
        return respond_error(request, Refused(Reason.UNAUTHENTICATED), CHALLENGE)

    if keys is not None:
        app.add_middleware(ApiKeyMiddleware, keys=keys, reject=reject)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(","),
            allow_methods=["GET", "POST"],
            allow_headers=CORS_HEADERS,
            expose_headers=["x-request-id", "x-degraded", "retry-after"],
        )
    app.add_middleware(RequestMiddleware, metrics=metrics)


def _add_error_handlers(app: FastAPI, respond_error: RespondError) -> None:
    """Say how what a handler raises is answered; a bug is left to `RequestMiddleware`."""

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        event("refused", id=context_of(request).id, reason=error.reason.code)
        comes_again = error.reason in {Reason.OVERLOADED, Reason.NOT_READY}
        return respond_error(request, error, RETRY_AFTER if comes_again else None)

    async def on_not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = Reason.METHOD_NOT_ALLOWED if error.status_code == 405 else Reason.NOT_FOUND
        return respond_error(request, Refused(reason), dict(error.headers) if error.headers else None)

    async def on_client_gone(request: Request, error: Exception) -> Response:  # noqa: ARG001  as Starlette calls it
        event("client_gone", id=context_of(request).id)
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(ClientDisconnected, on_client_gone)
    app.add_exception_handler(HTTPException, on_not_routed)
