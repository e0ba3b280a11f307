"""The handlers: reads a request in any dialect, has it scored, and writes the answer.

Knows requests and responses, terms, admission and the scorer; does not know paths, tokens or any API's shapes.
Invariant: any request gets an answer of the documented shapes, and an error holds a code, never the input.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeVar

import msgspec
from fastapi import Request, Response

from service.api.lenient import keys_of, normalized
from service.app.explain import explain_limits, parse_explain
from service.app.info import version_in_path
from service.app.recorder import RequestRecorder
from service.dialects import kserve, shared
from service.dialects.dialect import Dialect, ScoringRequest, ScoringResult
from service.domain.budget import TERMS_HEADERS, Terms, resolve_terms, tenant_of
from service.domain.ranking import Ranking
from service.errors import Reason, Refused
from service.http.guard import cancel_on_disconnect, read_body
from service.http.keys import TENANT
from service.http.middleware import JsonResponse, context_of
from service.process.lifecycle import Lifecycle, State
from service.rollout.comparer import ModelComparer
from service.rollout.models import to_json
from service.rollout.versions import Version, Versions
from service.scoring.ranker import Ranker
from service.scoring.scorer import Scorer
from service.settings import Settings
from service.telemetry.metrics import Metrics

Result = TypeVar("Result")
LOOP_PARSE_BYTES: Final = 65_536  # parsed within 0.1 ms; a larger body goes to a worker
LOOP_NORMALIZE_BYTES: Final = 2_048  # normalized within 1.5 ms at worst; a larger body on a worker
ERROR_RENDERER: Final = "shelfrank.dialect"  # key of a scope: how errors are written for this request
RECEIVED_AT: Final = (
    "shelfrank.received_s"  # key of a scope: when the body was complete, in monotonic seconds
)
JSON_BYTES: Final = "inference-header-content-length"
_TERMS: Final = {name.encode() for name in TERMS_HEADERS}


class Api:
    """The handlers of one application."""

    def __init__(  # noqa: PLR0913  each is one part of the application
        self,
        settings: Settings,
        versions: Versions,
        scorer: Scorer,
        metrics: Metrics,
        *,
        ranker: Ranker,
        recorder: RequestRecorder,
        comparer: ModelComparer,
        lifecycle: Lifecycle,
    ) -> None:
        self._settings = settings
        self._versions = versions
        self._scorer = scorer
        self._ranker = ranker
        self._metrics = metrics
        self._recorder = recorder
        self._comparer = comparer
        self._lifecycle = lifecycle
        self._explain_limits = explain_limits(settings)
        metrics.queue_tokens.set_function(lambda: scorer.admission.held_tokens)
        metrics.queue_seconds.set_function(lambda: scorer.pool.backlog_s)
        metrics.ready.set_function(lambda: lifecycle.is_ready)
        metrics.workers.set_function(lambda: scorer.pool.alive)

    async def rerank(self, request: Request) -> Response:
        """Rank documents for a query, best first."""
        with self._metrics.in_flight.track_inprogress():
            query = await self._parse_leniently(shared.read_query, await self._read(request, None), request)
            return await self._answer(shared.to_scoring_request(query), request)

    async def handle_dialect(self, request: Request, detect: Callable[[bytes], Dialect]) -> Response:
        """Answer a request in the dialect that `detect` finds in its body."""
        with self._metrics.in_flight.track_inprogress():
            body = await self._read(request, detect)
            dialect, keys = await self._parse(lambda body, _: (detect(body), keys_of(body)), body, request)
            request.scope[ERROR_RENDERER] = dialect.render_error
            self._metrics.ignored_by[dialect.name].inc(dialect.unknown(keys))
            return await self._answer(await self._parse_leniently(dialect.parse, body, request), request)

    async def explain(self, request: Request) -> Response:
        """Rank documents, and tell what was read of each and how its score came about."""
        with self._metrics.in_flight.track_inprogress():
            body = await self._read(request, None)
            scoring = await self._parse_leniently(
                lambda body, _: parse_explain(body, self._explain_limits), body, request
            )
            return await self._answer(scoring, request)

    async def models(self) -> Response:
        """List the models that are served, with all that their bundles say about them."""
        return JsonResponse(self._versions.list_json())

    async def model(self, request: Request) -> Response:
        """Say what the bundle says about one model."""
        return JsonResponse(to_json(self._versions.facts(self._version(request))))

    async def infer(self, request: Request) -> Response:
        """Score the pairs of two tensors."""
        with self._metrics.in_flight.track_inprogress():
            version = self._version(request)
            length = request.headers.get(JSON_BYTES)
            if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 18):
                raise Refused(Reason.INVALID_FIELD)
            body = await self._read(request, None, typed=False)
            parse = partial(kserve.parse_infer, json_bytes=None if length is None else int(length))
            scoring = await self._parse_leniently(parse, body, request)
            return await self._answer(scoring, request, version)

    async def server_metadata(self, request: Request) -> Response:
        """Say what this server is, as the Open Inference Protocol asks."""
        return JsonResponse(msgspec.json.encode(kserve.server_metadata(request.app.version)))

    async def model_metadata(self, request: Request) -> Response:
        """Say what the model reads and writes, as the Open Inference Protocol asks."""
        manifest = self._version(request).model.bundle.manifest
        return JsonResponse(msgspec.json.encode(kserve.model_metadata(manifest)))

    async def model_ready(self, request: Request) -> Response:
        """Say whether the model can be asked."""
        self._version(request)
        return await self.ready(request)

    async def ready(self, request: Request) -> Response:  # noqa: ARG002  as the other handlers
        """Say whether requests should be sent here, as the Open Inference Protocol does."""
        if not self._lifecycle.is_ready:
            raise Refused(Reason.NOT_READY)
        return JsonResponse(b'{"ready":true}')

    async def live(self) -> Response:
        """Say that the event loop turns, as the Open Inference Protocol does."""
        return JsonResponse(b'{"live":true}')

    async def info(self) -> Response:
        """Say what is served here."""
        facts = self._versions.stable.facts
        info = {
            "service": "shelfrank",
            "model": facts.id,
            "bundle": facts.bundle,
            "labels": [label.name for label in facts.labels],
            "max_documents": self._settings.max_documents,
        }
        return JsonResponse(msgspec.json.encode(info))

    def _version(self, request: Request) -> Version:
        return version_in_path(request, self._versions)

    async def _read(
        self, request: Request, detect: Callable[[bytes], Dialect] | None, *, typed: bool = True
    ) -> bytes:
        """Read the body; refuse before any work is spent on it, but in the dialect that a small one is in."""
        if self._lifecycle.state is State.STARTING:
            raise Refused(Reason.NOT_READY)
        limit = self._settings.max_body_bytes
        body = await read_body(request.scope["headers"], request.receive, limit, typed=typed)
        request.scope[RECEIVED_AT] = time.monotonic()
        if self._scorer.admission.is_full(self._tenant(request)):
            if detect is not None and len(body) <= LOOP_PARSE_BYTES:
                request.scope[ERROR_RENDERER] = detect(body).render_error
            raise Refused(Reason.OVERLOADED)
        return body

    def _tenant(self, request: Request) -> str:
        return tenant_of(_terms_headers(request), request.scope.get(TENANT), self._settings)

    async def _parse_leniently(
        self, parse: Callable[[bytes, Settings], Result], body: bytes, request: Request
    ) -> Result:
        """Parse a body; if it is refused, parse it once more in normalized form."""
        try:
            return await self._parse(parse, body, request)
        except Refused as refusal:
            again = partial(_parse_normalized, parse, refusal)
        return await self._parse(again, body, request, at_once=LOOP_NORMALIZE_BYTES)

    async def _parse(
        self,
        parse: Callable[[bytes, Settings], Result],
        body: bytes,
        request: Request,
        at_once: int = LOOP_PARSE_BYTES,
    ) -> Result:
        """Parse a body, a large one on a worker."""
        if len(body) <= at_once:
            return parse(body, self._settings)
        return await cancel_on_disconnect(
            self._scorer.offload(lambda: parse(body, self._settings)), request.receive
        )

    async def _answer(
        self, scoring: ScoringRequest, request: Request, version: Version | None = None
    ) -> Response:
        """Have a request scored by a model, or by the one that it is for, and write its answer."""
        version = version or self._chosen(scoring)
        if scoring.ignored:
            self._metrics.ignored_by["own"].inc(len(scoring.ignored))
        context = context_of(request)
        terms = resolve_terms(
            scoring.requested_terms,
            _terms_headers(request),
            self._tenant(request),
            context.started_s,
            self._settings,
        )
        received_s: float = request.scope[RECEIVED_AT]
        parsed_s = time.monotonic()
        ranking = await self._rank(scoring, version, terms, request)
        ranked_s = time.monotonic()
        times_s = {
            "receive": received_s - context.started_s,
            "parse": parsed_s - received_s,
            "tokenize": ranking.tokenize_s,
            "queue": ranking.queue_s,
            "infer": ranking.infer_s,
            "total": ranked_s - context.started_s,
        }
        bundle = version.model.bundle
        body = scoring.answer(
            ScoringResult(
                id=context.id,
                model=version.facts.id,
                bundle=bundle.id,
                manifest=bundle.manifest,
                ranking=ranking,
                times_s=times_s,
                created_s=int(time.time()),
            )
        )
        written_s = time.monotonic()
        times_s |= {"respond": written_s - ranked_s, "total": written_s - context.started_s}

        def record() -> None:
            self._recorder.record(
                context, request.headers, terms=terms, version=version, ranking=ranking, times_s=times_s
            )
            self._comparer.observe(version, scoring.groups, ranking)

        asyncio.get_running_loop().call_soon(record)  # when the answer has been written
        headers = {"x-degraded": ranking.unscored.reason} if ranking.unscored.reason else None
        return JsonResponse(body, headers=headers)

    def _chosen(self, scoring: ScoringRequest) -> Version:
        """Return the model that a request is for; by the settings, one that is not served counts as none named."""
        query = scoring.groups[0][0] if scoring.groups else ""
        version = self._versions.choose(scoring.model, query)
        if version is None and self._settings.unknown_model == "answer":
            version = self._versions.choose(None, query)
        if version is None:
            raise Refused(Reason.MODEL_NOT_FOUND, ("model",))
        return version

    async def _rank(
        self, scoring: ScoringRequest, version: Version, terms: Terms, request: Request
    ) -> Ranking:
        work = self._ranker.rank(version.model, scoring.groups, terms, measured=scoring.measured)
        ranking = await cancel_on_disconnect(work, request.receive)
        unscored = ranking.unscored
        if terms.on_failure == "error" and unscored.failed:
            late = unscored.deadline == unscored.failed
            raise Refused(Reason.DEADLINE if late else Reason.UNSCORED)
        return ranking


def _parse_normalized(
    parse: Callable[[bytes, Settings], Result], refusal: Refused, body: bytes, limits: Settings
) -> Result:
    """Parse the normalized form of a body; raise `refusal` if that is the same."""
    whole = normalized(body)
    if whole is None:
        raise refusal
    return parse(whole, limits)


def _terms_headers(request: Request) -> Mapping[str, str]:
    """Return those headers that say on which terms a request comes; of one that is there twice, the first."""
    headers = reversed(request.scope["headers"])
    return {str(name, "ascii"): str(value, "latin-1") for name, value in headers if name in _TERMS}
