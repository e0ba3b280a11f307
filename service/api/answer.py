"""The answer to a ranked query as types, and as JSON.

Knows what was asked and what came of it; does not know how anything was scored.
Invariant: a score is written as a decimal with a dot and without an exponent, whatever its value.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.domain.query import Document, Identifier, Query
from service.domain.ranking import RankedProduct, Ranking, decimal

Score = Annotated[Raw, Meta(extra_json_schema={"type": "number", "minimum": 0.0, "maximum": 1.0})]


class Result(Struct, kw_only=True):
    """One document of the answer."""

    index: Annotated[int, Meta(description="Position of the document in the request.")]
    id: Identifier | UnsetType = UNSET
    relevance_score: Annotated[Score, Meta(description="Expected relevance, always with a decimal point.")]
    label: Annotated[str | None, Meta(description="The most probable class; null if not scored.")]
    document: Document | UnsetType = UNSET


class TextResult(Struct, kw_only=True):
    """One document of the answer, in which a document that was a text is one."""

    index: int
    id: Identifier | UnsetType = UNSET
    relevance_score: Score
    label: str | None
    document: Document | str | UnsetType = UNSET


class Usage(Struct):
    """What the request cost; clients of other APIs read the last three."""

    documents: int
    tokens: Annotated[int, Meta(description="Tokens that the model read, now or before, without padding.")]
    truncated: Annotated[int, Meta(description="Documents of which not all text was read.")]
    cached: Annotated[int, Meta(description="Documents whose score was known.")]
    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    total_tokens: int | UnsetType = UNSET


class Timings(Struct):
    """Milliseconds spent in each stage."""

    receive: float
    parse: float
    tokenize: float
    queue: float
    infer: float
    total: float


class RerankAnswer(Struct):
    """Documents by descending score, ties in the order of the request."""

    id: Annotated[str, Meta(description="The request id, also in the x-request-id header.")]
    model: Annotated[str, Meta(description="name@version")]
    bundle: Annotated[str, Meta(description="Short id of the bundle that scored this request.")]
    results: list[Result]
    degraded: Annotated[str | None, Meta(description="null, or why some documents were not scored.")]
    coverage: Annotated[float, Meta(description="Share of the documents that were scored.")]
    usage: Usage
    timings_ms: Timings
    ignored: Annotated[
        Sequence[str] | UnsetType, Meta(description="Keys of the request that nobody here knows, if any.")
    ] = UNSET
    data: Annotated[
        list[TextResult] | UnsetType,
        Meta(description="The results again if the request named a model, for clients that read them here."),
    ] = UNSET


def encode_answer(  # noqa: PLR0913, PLR0917  each is one field of the answer
    request_id: str, model: str, bundle: str, query: Query, ranking: Ranking, times_s: Mapping[str, float]
) -> bytes:
    """Return the answer's JSON; times are in seconds.

    A request that names a model may come from a client of another API: the answer then has what all of them read.
    """
    documents = len(ranking.products)
    products = ranking.products[: query.top_n]
    answer = RerankAnswer(
        id=request_id,
        model=model,
        bundle=bundle,
        results=[_result(product, query) for product in products],
        degraded=ranking.unscored.reason,
        coverage=1.0 - ranking.unscored.total / documents if documents else 1.0,
        usage=usage_of(query, ranking),
        timings_ms=Timings(**{stage: round(seconds * 1000, 3) for stage, seconds in times_s.items()}),
        ignored=query.ignored or UNSET,
    )
    if query.model is not None:
        answer.data = cast("list[TextResult]", answer.results)
        if query.return_documents:
            answer.data = [_text_result(result, query) for result in answer.results]
        tokens = answer.usage.tokens
        answer.usage.prompt_tokens = answer.usage.total_tokens = tokens
        answer.usage.completion_tokens = 0
    return msgspec.json.encode(answer)


def usage_of(query: Query, ranking: Ranking) -> Usage:
    """Return what a request cost."""
    truncated = max(ranking.truncated + ranking.cached_cut, query.clipped)
    return Usage(len(ranking.products), ranking.used_tokens, truncated, ranking.cached)


def _result(product: RankedProduct, query: Query) -> Result:
    document = query.documents[product.index]
    given_id = None if isinstance(document, str) else document.id
    result = Result(
        index=product.index,
        id=UNSET if given_id is None else given_id,
        relevance_score=Raw(decimal(product.score)),
        label=product.label,
    )
    if query.return_documents:
        result.document = Document(text=document) if isinstance(document, str) else document
    return result


def _text_result(result: Result, query: Query) -> TextResult:
    document = query.documents[result.index]
    return TextResult(
        index=result.index,
        id=result.id,
        relevance_score=result.relevance_score,
        label=result.label,
        document=document,
    )
