"""PURE. vLLM's score, and its rerank, which is Jina's; https://docs.vllm.ai, "Score API".

Knows vLLM's requests, answers and errors; does not know who scores.
Invariant: scores come back in the order of the pairs; without activation they are the model's logits.
"""

from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from service.dialects import jina
from service.dialects.dialect import (
    Dialect,
    ErrorReply,
    ScoringRequest,
    ScoringResult,
    pair_up,
    scores_in_order,
)
from service.errors import Location, Reason, Refused, error_message
from service.settings import Settings

SPELLINGS: Final = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)
_TYPES: Final = {400: "BadRequestError", 404: "NotFoundError"}

Texts = str | list[str]


class Request(Struct):
    """A request in one of the four spellings."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    use_activation: bool | None = None
    activation: bool | None = None


def convert(request: Request, limits: Settings) -> ScoringRequest:
    """Return what a request asks to score."""
    for names in SPELLINGS:
        first, second = getattr(request, names[0]), getattr(request, names[1])
        if first is not None and second is not None:
            groups = pair_up(_listed(first), _listed(second), limits, names)
            is_raw = request.use_activation is False or request.activation is False
            return ScoringRequest(groups, partial(_answer, raw=is_raw))
    raise Refused(Reason.MISSING_DOCUMENTS)


def _listed(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _answer(scored: ScoringResult, *, raw: bool) -> bytes:
    scores = scores_in_order(scored, raw=raw)
    tokens = scored.ranking.used_tokens
    answer = {
        "id": f"score-{scored.id}",
        "object": "list",
        "created": scored.created_s,
        "model": scored.model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }
    return msgspec.json.encode(answer)


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  vLLM names none
    """Write an error as vLLM does."""
    status = 400 if reason.status == 422 else reason.status
    kind = _TYPES.get(status, HTTPStatus(status).phrase)
    error = {"message": error_message(reason, loc), "type": kind, "param": None, "code": status}
    return status, msgspec.json.encode({"error": error})


SCORE: Final = Dialect("vllm", Request, convert, render_error)
RERANK: Final = Dialect("vllm", jina.Request, jina.convert, render_error)
