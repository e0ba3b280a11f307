"""PURE. infinity's rerank; https://michaelfeil.eu/infinity.

Knows infinity's requests, answers and errors; does not know who scores.
Invariant: documents are texts, and come back as texts; `raw_scores` gives the model's logits.
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
    top_n: AtLeastOne | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None


def convert(request: Request, limits: Settings) -> ScoringRequest:
    """Return what a request asks to score."""
    return scoring_request(request.query, request.documents, limits, partial(_answer, request))


def _answer(request: Request, scored: ScoringResult) -> bytes:
    results: list[dict[str, object]] = []
    for index, score in best_first(scored, request.top_n, raw=bool(request.raw_scores)):
        results.append({"relevance_score": score, "index": index})
        if request.return_documents:
            results[-1]["document"] = request.documents[index]
    tokens = scored.ranking.used_tokens
    answer = {
        "object": "rerank",
        "results": results,
        "model": scored.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        "id": scored.id,
        "created": scored.created_s,
    }
    return msgspec.json.encode(answer)


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  infinity names none
    """Write an error as infinity does: a list of details for what is invalid, an object for all else."""
    if reason.status == 422:
        detail = {"loc": ["body", *loc], "msg": reason.message, "type": reason.code}
        return 422, msgspec.json.encode({"detail": [detail]})
    error = {"message": error_message(reason, loc), "type": reason.code, "param": None, "code": reason.status}
    return reason.status, msgspec.json.encode({"error": error})


INFINITY: Final = Dialect("infinity", Request, convert, render_error)
