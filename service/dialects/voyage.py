"""PURE. Voyage's rerank; https://docs.voyageai.com/reference/reranker-api.

Knows Voyage's requests, answers and errors; does not know who scores.
Invariant: documents are texts, and come back as texts; an invalid request is a 400, as Voyage's client expects.
"""

from functools import partial
from typing import Final

import msgspec
from msgspec import Struct

from service.dialects.dialect import (
    AtLeastOne,
    Dialect,
    ErrorReply,
    ScoringRequest,
    ScoringResult,
    best_first,
    scoring_request,
)
from service.errors import Location, Reason, error_message
from service.settings import Settings


class Request(Struct):
    """A request."""

    query: str
    documents: list[str]
    top_k: AtLeastOne | None = None
    return_documents: bool | None = None


def convert(request: Request, limits: Settings) -> ScoringRequest:
    """Return what a request asks to score."""
    return scoring_request(request.query, request.documents, limits, partial(_answer, request))


def _answer(request: Request, scored: ScoringResult) -> bytes:
    data: list[dict[str, object]] = []
    for index, score in best_first(scored, request.top_k):
        data.append({"index": index, "relevance_score": score})
        if request.return_documents:
            data[-1]["document"] = request.documents[index]
    usage = {"total_tokens": scored.ranking.used_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": scored.model, "usage": usage})


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  Voyage names none
    """Write an error as Voyage does; its client raises a plain APIError for a body without `detail`."""
    status = 400 if reason.status == 422 else reason.status
    return status, msgspec.json.encode({"detail": error_message(reason, loc)})


VOYAGE: Final = Dialect("voyage", Request, convert, render_error)
