"""PURE. Jina's rerank; https://api.jina.ai/redoc.

Knows Jina's requests, answers and errors; does not know who scores.
Invariant: documents come back as objects with a text unless they are declined, as Jina returns them.
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
    as_object,
    best_first,
    scoring_request,
)
from service.domain.query import Document
from service.errors import Location, Reason, error_message
from service.settings import Settings


class Request(Struct):
    """A request."""

    query: str
    documents: list[str | Document]
    top_n: AtLeastOne | None = None
    return_documents: bool | None = None


def convert(request: Request, limits: Settings) -> ScoringRequest:
    """Return what a request asks to score."""
    return scoring_request(request.query, request.documents, limits, partial(_answer, request))


def _answer(request: Request, scored: ScoringResult) -> bytes:
    results: list[dict[str, object]] = []
    for index, score in best_first(scored, request.top_n):
        results.append({"index": index, "relevance_score": score})
        if request.return_documents is not False:
            results[-1]["document"] = as_object(request.documents[index])
    tokens = scored.ranking.used_tokens
    usage = {"total_tokens": tokens, "prompt_tokens": tokens, "completion_tokens": 0}
    answer = {"id": scored.id, "model": scored.model, "object": "list", "usage": usage, "results": results}
    return msgspec.json.encode(answer)


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  Jina names none
    """Write an error as Jina does."""
    return reason.status, msgspec.json.encode({"detail": error_message(reason, loc)})


JINA: Final = Dialect("jina", Request, convert, render_error)
