"""The handlers: reads a request in any dialect, has it scored, and writes the answer.

Knows requests and responses, admission and the scorer; does not know paths, tokens or any API's shapes.
Invariant: any request gets an answer of the documented shapes, and an error tells a code, never the input.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import msgspec
from fastapi import Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.admission import Admission, predict_tokens
from service.dialects import kserve, shared
from service.dialects.dialect import Ask, Dialect, Scored
from service.edge import JsonResponse, error_response, trace_of
from service.errors import Reason, Refused
from service.explain import explain_limits, parse_explain
from service.guard import read_body, unless_gone
from service.lifecycle import Lifecycle, State
from service.logs import event
from service.metrics import Metrics
from service.models import ModelList, describe_model, to_json
from service.schema import parse_request, text_chars
from service.scorer import Ranking, Scorer
from service.settings import Settings

Result = TypeVar("Result")
LOOP_PARSE_BYTES: Final = 65_536  # parsed within 0.1 ms; a larger body goes to a worker
SPOKEN: Final = "shelfrank.dialect"  # where in a scope it stands how to refuse
JSON_BYTES: Final = "inference-header-content-length"


class Api:
    """The handlers of one application."""

    def __init__(self, settings: Settings, scorer: Scorer, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._scorer = scorer
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._admission = Admission(settings.queue_tokens)
        manifest = scorer.bundle.manifest
        facts = describe_model(scorer.bundle, scorer.precision)
        self._model, self._facts = facts.id, to_json(facts)
        self._list = to_json(ModelList(data=(facts,)))
        self._explain_limits = explain_limits(settings)
        self._model_names = {None, manifest.name, self._model}
        metrics.watch(
            queue_tokens=lambda: self._admission.held_tokens,
            ready=lambda: self._is_ready,
            workers=lambda: scorer.pool.alive,
        )

    async def rerank(self, request: Request) -> Response:
        """Rank documents for a query, best first."""
        with self._metrics.in_flight.track_inprogress():
            body = await self._read(request, shared.at_v1_rerank)
            try:
                ask = shared.own(await self._parse(parse_request, body, request))
            except Refused as refusal:
                dialect = await self._parse(lambda body, _: shared.at_v1_rerank(body), body, request)
                if dialect is shared.SHARED and refusal.reason is not Reason.UNKNOWN_FIELD:
                    raise
                request.scope[SPOKEN] = dialect.refuse
                ask = await self._parse(dialect.parse, body, request)
            return await self._answer(ask, request)

    async def speak(self, request: Request, tell: Callable[[bytes], Dialect]) -> Response:
        """Answer a request in the dialect that `tell` tells by its body."""
        with self._metrics.in_flight.track_inprogress():
            body = await self._read(request, tell)
            dialect = await self._parse(lambda body, _: tell(body), body, request)
            request.scope[SPOKEN] = dialect.refuse
            return await self._answer(await self._parse(dialect.parse, body, request), request)

    async def explain(self, request: Request) -> Response:
        """Rank documents, and tell what was read of each and how its score came about."""
        with self._metrics.in_flight.track_inprogress():
            body = await self._read(request, None)
            ask = await self._parse(lambda body, _: parse_explain(body, self._explain_limits), body, request)
            return await self._answer(ask, request)

    async def models(self) -> Response:
        """List the model that is served, with all that its bundle says about it."""
        return JsonResponse(self._list)

    async def model(self, request: Request) -> Response:
        """Say what the bundle says about one model."""
        self._check_model(request)
        return JsonResponse(self._facts)

    async def infer(self, request: Request) -> Response:
        """Score the pairs of two tensors."""
        with self._metrics.in_flight.track_inprogress():
            self._check_model(request)
            length = request.headers.get(JSON_BYTES)
            if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 18):
                raise Refused(Reason.INVALID_FIELD)
            body = await self._read(request, None, typed=False)
            parse = partial(kserve.parse_infer, json_bytes=None if length is None else int(length))
            return await self._answer(await self._parse(parse, body, request), request)

    async def server_metadata(self, request: Request) -> Response:
        """Say what this server is, as the Open Inference Protocol asks."""
        return JsonResponse(msgspec.json.encode(kserve.server_metadata(request.app.version)))

    async def model_metadata(self, request: Request) -> Response:
        """Say what the model reads and writes, as the Open Inference Protocol asks."""
        self._check_model(request)
        return JsonResponse(msgspec.json.encode(kserve.model_metadata(self._scorer.bundle.manifest)))

    async def model_ready(self, request: Request) -> Response:
        """Say whether the model can be asked."""
        self._check_model(request)
        return await self.ready(request)

    async def ready(self, request: Request) -> Response:  # noqa: ARG002  as the other handlers
        """Say whether requests should be sent here, as the Open Inference Protocol does."""
        if not self._is_ready:
            raise Refused(Reason.NOT_READY)
        return JsonResponse(b'{"ready":true}')

    async def live(self) -> Response:
        """Say that the event loop turns, as the Open Inference Protocol does."""
        return JsonResponse(b'{"live":true}')

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

    def _check_model(self, request: Request) -> None:
        manifest = self._scorer.bundle.manifest
        named = request.path_params["model"] in self._model_names
        if not named or request.path_params.get("version", manifest.version) != manifest.version:
            raise Refused(Reason.MODEL_NOT_FOUND)

    async def _read(
        self, request: Request, tell: Callable[[bytes], Dialect] | None, *, typed: bool = True
    ) -> bytes:
        """Read the body; refuse before any work is spent on it, but in the dialect that a small one is in."""
        if self._lifecycle.state is State.STARTING:
            raise Refused(Reason.NOT_READY)
        limit = self._settings.max_body_bytes
        body = await read_body(request.scope["headers"], request.receive, limit, typed=typed)
        if self._admission.full:
            if tell is not None and len(body) <= LOOP_PARSE_BYTES:
                request.scope[SPOKEN] = tell(body).refuse
            raise Refused(Reason.OVERLOADED)
        return body

    async def _parse(
        self, parse: Callable[[bytes, Settings], Result], body: bytes, request: Request
    ) -> Result:
        """Parse a body, a large one on a worker."""
        if len(body) <= LOOP_PARSE_BYTES:
            return parse(body, self._settings)
        return await unless_gone(self._scorer.offload(lambda: parse(body, self._settings)), request.receive)

    async def _answer(self, ask: Ask, request: Request) -> Response:
        """Have a request scored and write its answer."""
        if ask.model not in self._model_names:
            raise Refused(Reason.MODEL_NOT_FOUND, ("model",))
        parsed_s = time.monotonic()
        ranking = await self._rank(ask, request)
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
        bundle = self._scorer.bundle
        scored = Scored(
            id=trace.id,
            model=self._model,
            bundle=bundle.id,
            manifest=bundle.manifest,
            ranking=ranking,
            times_s=times,
            created_s=int(time.time()),
        )
        headers = {"x-degraded": ranking.unscored.reason} if ranking.unscored.reason else None
        return JsonResponse(ask.answer(scored), headers=headers)

    async def _rank(self, ask: Ask, request: Request) -> Ranking:
        longest = self._scorer.bundle.manifest.text.max_length
        tokens = sum(
            predict_tokens(len(query), text_chars(products), longest) for query, products in ask.groups
        )
        if not self._admission.admit(tokens):
            raise Refused(Reason.OVERLOADED)
        try:
            ranking = self._scorer.rank_groups(ask.groups, measured=ask.measured)
            return await unless_gone(ranking, request.receive)
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
