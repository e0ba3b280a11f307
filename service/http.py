"""The routes: reads a request, has it ranked, and writes the answer.

Knows HTTP and the API's shapes; does not know tokens, threads or the model's runtime.
Invariant: any request gets an answer of the documented shapes, and an error tells a code, never the input.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from service.admission import Admission, predict_tokens
from service.answer import encode_answer
from service.edge import Edge, JsonResponse, error_response, trace_of
from service.errors import ClientGone, Reason, Refused
from service.guard import read_body, unless_gone
from service.lifecycle import Lifecycle, State
from service.logs import event
from service.metrics import Metrics
from service.openapi import DESCRIPTION, with_schemas
from service.schema import Query, parse_request, text_chars
from service.scorer import Ranking, Scorer
from service.settings import Settings

LOOP_PARSE_BYTES: Final = 65_536  # parsed within 0.1 ms; a larger body goes to a worker
STOP_TIMEOUT_S: Final = 5.0
RETRY_AFTER: Final = {"retry-after": "1"}
CLIENT_CLOSED_REQUEST: Final = 499  # nobody sees it; it keeps the counts right


class Api:
    """The handlers of one application."""

    def __init__(self, settings: Settings, scorer: Scorer, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._scorer = scorer
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._admission = Admission(settings.queue_tokens)
        manifest = scorer.bundle.manifest
        self._model = f"{manifest.name}@{manifest.version}"
        self._model_names = {None, manifest.name, self._model}
        metrics.watch(
            queue_tokens=lambda: self._admission.held_tokens,
            ready=lambda: self._is_ready,
            workers=lambda: scorer.pool.alive,
        )

    async def rerank(self, request: Request) -> Response:
        """Rank documents for a query, best first."""
        with self._metrics.in_flight.track_inprogress():
            query = await self._read(request)
            parsed_s = time.monotonic()
            ranking = await self._rank(query, request)
        trace = trace_of(request)
        times = {
            "parse": parsed_s - trace.started_s,
            "tokenize": ranking.tokenize_s,
            "queue": ranking.queue_s,
            "infer": ranking.infer_s,
            "total": time.monotonic() - trace.started_s,
        }
        self._count(ranking, times)
        event(
            "ranked",
            id=trace.id,
            documents=len(ranking.places),
            tokens=ranking.tokens,
            degraded=ranking.unscored.reason,
            queue_ms=round(ranking.queue_s * 1000, 3),
            infer_ms=round(ranking.infer_s * 1000, 3),
            total_ms=round(times["total"] * 1000, 3),
        )
        return JsonResponse(
            encode_answer(trace.id, self._model, self._scorer.bundle.id, query, ranking, times)
        )

    async def livez(self) -> Response:
        """Say that the event loop turns."""
        return JsonResponse(b'{"status":"alive"}')

    async def readyz(self, request: Request) -> Response:
        """Say whether requests should be sent here: 503 while starting or draining, or if a worker died."""
        if not self._is_ready:
            return error_response(Reason.NOT_READY, trace_of(request).id)
        return JsonResponse(b'{"status":"ready"}')

    async def metrics(self) -> Response:
        """Give the metrics in Prometheus's text format."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def info(self) -> Response:
        """Say what is served here."""
        manifest = self._scorer.bundle.manifest
        about = {
            "service": "shelfrank",
            "model": self._model,
            "bundle": self._scorer.bundle.id,
            "labels": [label.name for label in manifest.labels],
            "max_documents": self._settings.max_documents,
        }
        return JsonResponse(msgspec.json.encode(about))

    @property
    def _is_ready(self) -> bool:
        pool = self._scorer.pool
        return self._lifecycle.state is State.READY and pool.alive == pool.size

    async def _read(self, request: Request) -> Query:
        if self._lifecycle.state is State.STARTING:
            raise Refused(Reason.NOT_READY)
        settings = self._settings
        body = await read_body(request.scope["headers"], request.receive, settings.max_body_bytes)
        if self._admission.full:
            raise Refused(Reason.OVERLOADED)  # before any work is spent on it
        if len(body) <= LOOP_PARSE_BYTES:
            query = parse_request(body, settings)
        else:
            query = await unless_gone(
                self._scorer.offload(lambda: parse_request(body, settings)), request.receive
            )
        if query.model not in self._model_names:
            raise Refused(Reason.MODEL_NOT_FOUND, ("model",))
        return query

    async def _rank(self, query: Query, request: Request) -> Ranking:
        longest = self._scorer.bundle.manifest.text.max_length
        tokens = predict_tokens(len(query.text), text_chars(query.products), longest)
        if not self._admission.admit(tokens):
            raise Refused(Reason.OVERLOADED)
        try:
            return await unless_gone(self._scorer.rank(query.text, query.products), request.receive)
        finally:
            self._admission.release(tokens)

    def _count(self, ranking: Ranking, times: dict[str, float]) -> None:
        metrics = self._metrics
        for stage, seconds in times.items():
            metrics.stage_seconds.labels(stage).observe(seconds)
        metrics.request_documents.observe(len(ranking.places))
        metrics.documents.inc(len(ranking.places))
        metrics.tokens.inc(ranking.tokens)
        metrics.padding_tokens.inc(ranking.padding_tokens)
        metrics.truncated.inc(ranking.truncated)
        metrics.unscored.labels("nonfinite").inc(ranking.unscored.nonfinite)
        metrics.unscored.labels("engine").inc(ranking.unscored.engine)


def build_app(settings: Settings, scorer: Scorer, metrics: Metrics) -> FastAPI:
    """Return the application; its workers run from start-up to shutdown."""
    lifecycle = Lifecycle()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001  as FastAPI calls it
        scorer.pool.start()
        lifecycle.started()
        yield
        await asyncio.to_thread(scorer.pool.stop, STOP_TIMEOUT_S)

    app = FastAPI(
        title="shelfrank",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    app.state.lifecycle, app.state.metrics = lifecycle, metrics
    api = Api(settings, scorer, metrics, lifecycle)
    app.add_api_route("/v1/rerank", api.rerank, methods=["POST"])
    for path, handler in (
        ("/livez", api.livez),
        ("/readyz", api.readyz),
        ("/metrics", api.metrics),
        ("/", api.info),
    ):
        app.add_api_route(path, handler, methods=["GET"])
    app.add_middleware(Edge, metrics=metrics)
    _add_error_handlers(app, metrics)
    app.openapi = with_schemas(app.openapi)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        metrics.rejected.labels(error.reason.code).inc()
        request_id = trace_of(request).id
        event("refused", id=request_id, reason=error.reason.code)
        headers = RETRY_AFTER if error.reason in {Reason.OVERLOADED, Reason.NOT_READY} else None
        return error_response(error.reason, request_id, error.loc, headers)

    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = Reason.METHOD_NOT_ALLOWED if error.status_code == 405 else Reason.NOT_FOUND
        metrics.rejected.labels(reason.code).inc()
        return error_response(reason, trace_of(request).id, headers=error.headers)

    async def client_gone(request: Request, error: Exception) -> Response:  # noqa: ARG001  as Starlette calls it
        event("client_gone", id=trace_of(request).id)
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, not_routed)
    app.add_exception_handler(ClientGone, client_gone)
