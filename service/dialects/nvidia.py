"""PURE. The ranking of NVIDIA's reranking NIM; https://docs.nvidia.com/nim, "NeMo Retriever Reranking".

Knows its requests, answers and errors; does not know who scores.
Invariant: every passage comes back by its index, best first, with the model's logit.
"""

from typing import Final

import msgspec
from msgspec import Struct

from service.dialects.dialect import (
    Dialect,
    ErrorReply,
    ScoringRequest,
    ScoringResult,
    best_first,
    scoring_request,
)
from service.domain.query import Document
from service.errors import Location, Reason, error_message
from service.settings import Settings


class Text(Struct):
    """A query."""

    text: str


class Request(Struct):
    """A request; passages have a text, and may have the other fields of a product."""

    query: Text
    passages: list[Document]


def convert(request: Request, limits: Settings) -> ScoringRequest:
    """Return what a request asks to score."""
    return scoring_request(request.query.text, request.passages, limits, _answer, "passages")


def _answer(scored: ScoringResult) -> bytes:
    tokens = scored.ranking.used_tokens
    answer = {
        "rankings": [{"index": index, "logit": logit} for index, logit in best_first(scored, None, raw=True)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return msgspec.json.encode(answer)


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  it names none
    """Write an error as the NIM does; its clients show `detail`."""
    kind = "invalid_request_error" if reason.status < 500 else "internal_server_error"
    message = error_message(reason, loc)
    return reason.status, msgspec.json.encode(
        {"object": "error", "message": message, "detail": message, "type": kind}
    )


RANKING: Final = Dialect("nvidia", Request, convert, render_error)
