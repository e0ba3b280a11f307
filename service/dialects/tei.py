"""PURE. The rerank and predict of text-embeddings-inference, and of a Hugging Face endpoint that runs it.

Knows TEI's requests, answers and errors; does not know who scores.
Invariant: rerank answers a bare list, best first; predict answers every class of every pair, most probable first.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct

from bundle.score import class_probabilities
from service.dialects.dialect import (
    AtLeastOne,
    Dialect,
    ErrorReply,
    ScoringRequest,
    ScoringResult,
    best_first,
    decimal,
    finite_logits,
    pair_up,
    scoring_request,
)
from service.errors import Location, Reason, Refused, error_message
from service.settings import Settings

_TYPES: Final = {
    Reason.OVERLOADED: ("overloaded", 429),
    Reason.NOT_READY: ("unhealthy", 503),
    Reason.UNSCORED: ("backend", 424),
}


class RerankRequest(Struct):
    """A query and texts; the names that Elasticsearch sends to a Hugging Face endpoint are taken as well."""

    query: str
    texts: list[str] | None = None
    documents: list[str] | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    return_documents: bool | None = None
    top_n: AtLeastOne | None = None


class PredictRequest(Struct):
    """One pair of texts, or a list of pairs; a text alone is TEI's too, but no model here classifies one."""

    inputs: str | list[str | list[str]]
    raw_scores: bool | None = None


def convert_rerank(request: RerankRequest, limits: Settings) -> ScoringRequest:
    """Read a request to rank texts."""
    name, texts = ("texts", request.texts) if request.texts is not None else ("documents", request.documents)
    if texts is None:
        raise Refused(Reason.MISSING_DOCUMENTS)
    return scoring_request(request.query, texts, limits, partial(_answer_rerank, request, texts), name)


def _answer_rerank(request: RerankRequest, texts: Sequence[str], scored: ScoringResult) -> bytes:
    ranks: list[dict[str, object]] = []
    for index, score in best_first(scored, request.top_n, raw=bool(request.raw_scores)):
        ranks.append({"index": index, "score": score})
        if request.return_text or request.return_documents:
            ranks[-1]["text"] = texts[index]
    return msgspec.json.encode(ranks)


def convert_predict(request: PredictRequest, limits: Settings) -> ScoringRequest:
    """Read pairs to classify; a text alone has no query to be relevant to."""
    if request.raw_scores:
        raise Refused(Reason.UNSUPPORTED_OPTION, ("raw_scores",))  # a class has a probability, not a logit
    if isinstance(request.inputs, str):
        raise Refused(Reason.UNPAIRED_TEXTS, ("inputs",))
    pairs = [pair for pair in request.inputs if not isinstance(pair, str)]
    is_single = not pairs and bool(request.inputs)
    if is_single:
        pairs = [[text for text in request.inputs if isinstance(text, str)]]
    if (len(pairs) != len(request.inputs) and not is_single) or any(len(pair) != 2 for pair in pairs):
        raise Refused(Reason.UNPAIRED_TEXTS, ("inputs",))
    queries, texts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    groups = pair_up(queries, texts, limits, ("inputs", "inputs"))
    return ScoringRequest(groups, partial(_answer_predict, is_single=is_single))


def _answer_predict(scored: ScoringResult, *, is_single: bool) -> bytes:
    manifest = scored.manifest
    names = [label.name for label in manifest.labels]
    rows = class_probabilities(finite_logits(scored), manifest.calibration).tolist()
    predictions = [
        [
            {"score": decimal(probability), "label": name}
            for probability, name in sorted(zip(row, names, strict=True), reverse=True)
        ]
        for row in rows
    ]
    return msgspec.json.encode(predictions[0] if is_single else predictions)


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  TEI names none
    """Write an error as TEI does."""
    kind, status = _TYPES.get(reason, ("validation", reason.status))
    return status, msgspec.json.encode({"error": error_message(reason, loc), "error_type": kind})


RERANK: Final = Dialect("tei", RerankRequest, convert_rerank, render_error)
PREDICT: Final = Dialect("tei", PredictRequest, convert_predict, render_error)
