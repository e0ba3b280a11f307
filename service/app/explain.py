"""PURE. Explains how each score came about: what was read of every text, the logit, and the classes it means.

Knows the request in our own form and what its ranking counted; does not know who ranked or who asks.
Invariant: the answer holds numbers, ids and names of ours, no text of the request; scores are those of /v1/rerank.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from bundle.rows import padded_length
from bundle.score import class_probabilities
from bundle.text import ProductUse, TextUse
from service.api.answer import Score, Usage, usage_of
from service.dialects.dialect import ScoringRequest, ScoringResult, decimal
from service.dialects.shared import read_query
from service.domain.query import TEXT_FIELDS, Document, Identifier, Query
from service.domain.ranking import Cause
from service.settings import Settings

MAX_EXPLAINED: Final = 100
"""Explaining tokenizes twice and is for people, who read no longer lists; docs/api.md states it."""

UNREAD: Final = TextUse("", tokens=0, unknown=None, over_limit=0, over_length=0, over_chars=0)
"""How much is read of a query when the budget ends before its turn."""

Microseconds = Annotated[int, Meta(ge=0)]


class TextExplained(Struct):
    """How much of a text the model reads, and what keeps it from the rest."""

    tokens: Annotated[int, Meta(description="Tokens that are read.")]
    unknown: Annotated[
        int | None,
        Meta(description="Of these, tokens for text that the vocabulary lacks; null if unknowable."),
    ]
    clipped: Annotated[bool, Meta(description="Whether one of the next three is above 0.")]
    over_limit: Annotated[int, Meta(description="Tokens past the text's own limit.")]
    over_length: Annotated[int, Meta(description="Tokens that found no room in the pair.")]
    over_chars: Annotated[int, Meta(description="Characters clipped before they could become tokens.")]


class DocumentExplained(Struct, kw_only=True):
    """One document."""

    index: Annotated[int, Meta(description="Position of the document in the request.")]
    id: Identifier | UnsetType = UNSET
    logit: Annotated[float | None, Meta(description="What the model gave; null if not scored.")]
    relevance_score: Annotated[Score, Meta(description="As /v1/rerank gives it.")]
    label: Annotated[str | None, Meta(description="The most probable class; null if not scored.")]
    probabilities: Annotated[
        dict[str, Score] | None,
        Meta(description="Each class with its probability, least relevant first; null if not scored."),
    ]
    fields: Annotated[
        dict[str, TextExplained], Meta(description="The texts that the model reads, in that order.")
    ]
    unread: Annotated[list[str], Meta(description="Fields that were given and that the model never reads.")]
    clipped: Annotated[bool, Meta(description="Whether a field is clipped.")]
    unknown: Annotated[int | None, Meta(description="Unknown tokens of all fields; null if unknowable.")]
    tokens: Annotated[int, Meta(description="Tokens of the pair: query, fields and separators.")]
    padded_length: Annotated[int, Meta(description="Length at which the pair was computed.")]


class MicroTimings(Struct):
    """Microseconds spent in each stage."""

    receive: Microseconds
    parse: Microseconds
    measure: Annotated[Microseconds, Meta(description="Counting tokens, which /v1/rerank does not do.")]
    tokenize: Microseconds
    queue: Microseconds
    infer: Microseconds
    total: Microseconds


class ExplainAnswer(Struct):
    """What came of each document and why, in the order of the request."""

    id: Annotated[str, Meta(description="The request id, also in the x-request-id header.")]
    model: Annotated[str, Meta(description="name@version")]
    bundle: Annotated[str, Meta(description="Short id of the bundle that scored this request.")]
    query: TextExplained
    documents: list[DocumentExplained]
    order: Annotated[list[int], Meta(description="Indices as /v1/rerank would list them, best first.")]
    degraded: Annotated[str | None, Meta(description="null, or why some documents were not scored.")]
    coverage: Annotated[float, Meta(description="Share of the documents that were scored.")]
    usage: Usage
    timings_us: MicroTimings
    ignored: Annotated[
        Sequence[str] | UnsetType, Meta(description="Keys of the request that nobody here knows, if any.")
    ] = UNSET


def explain_limits(limits: Settings) -> Settings:
    """Return the limits of a request to explain: those of a ranking, with fewer documents."""
    return limits.model_copy(update={"max_documents": min(limits.max_documents, MAX_EXPLAINED)})


def parse_explain(body: bytes, limits: Settings) -> ScoringRequest:
    """Read the body of a ranking in our own form as a request to explain it; Refused as a ranking is."""
    query = read_query(body, limits)
    return ScoringRequest(
        [(query.text, query.products)],
        partial(_answer, query),
        query.model,
        measured=True,
        requested_terms=query.requested_terms,
        ignored=query.ignored,
    )


def _answer(query: Query, scored: ScoringResult) -> bytes:
    ranking = scored.ranking
    query_use, product_uses = next(iter(ranking.uses), (UNREAD, ()))
    documents = len(ranking.products)
    answer = ExplainAnswer(
        id=scored.id,
        model=scored.model,
        bundle=scored.bundle,
        query=_text(query_use),
        documents=_documents(query, product_uses, scored),
        order=[product.index for product in ranking.products[: query.top_n]],
        degraded=ranking.unscored.reason,
        coverage=1.0 - ranking.unscored.total / documents if documents else 1.0,
        usage=usage_of(query, ranking),
        timings_us=_timings({**scored.times_s, "measure": ranking.measure_s}),
        ignored=query.ignored or UNSET,
    )
    return msgspec.json.encode(answer)


def _documents(query: Query, uses: Sequence[ProductUse], scored: ScoringResult) -> list[DocumentExplained]:
    """Return all documents in the order of the request; of one that nobody read, `uses` says nothing."""
    manifest, logits = scored.manifest, scored.ranking.logits
    finite = np.isfinite(logits)
    rows = iter(class_probabilities(logits[finite], manifest.calibration).tolist())
    names = [label.name for label in manifest.labels]
    known = {field.name for field in manifest.text.fields}
    read, nothing = iter(uses), ProductUse((), 0)
    documents = []
    for product in sorted(scored.ranking.products, key=lambda product: product.index):
        document = query.documents[product.index]
        is_unknown = scored.ranking.causes[product.index] == Cause.UNKNOWN_ID
        use = nothing if is_unknown else next(read, nothing)
        is_scored = bool(finite[product.index])
        given = None if isinstance(document, str) else document.id
        unknown = [field.unknown for field in use.fields if field.unknown is not None]
        documents.append(
            DocumentExplained(
                index=product.index,
                id=UNSET if given is None else given,
                logit=float(str(logits[product.index]))
                if is_scored
                else None,  # shortest that is this float32
                relevance_score=decimal(product.score),
                label=product.label,
                probabilities=dict(zip(names, map(decimal, next(rows)), strict=True)) if is_scored else None,
                fields={field.name: _text(field) for field in use.fields},
                unread=_unread(document, known),
                clipped=any(field.is_clipped for field in use.fields),
                unknown=sum(unknown) if len(unknown) == len(use.fields) else None,
                tokens=use.tokens,
                padded_length=padded_length(use.tokens, manifest.text.max_length),
            )
        )
    return documents


def _text(use: TextUse) -> TextExplained:
    return TextExplained(
        tokens=use.tokens,
        unknown=use.unknown,
        clipped=use.is_clipped,
        over_limit=use.over_limit,
        over_length=use.over_length,
        over_chars=use.over_chars,
    )


def _unread(document: str | Document, known: Collection[str]) -> list[str]:
    given = (
        {"text"} if isinstance(document, str) else {name for name in TEXT_FIELDS if getattr(document, name)}
    )
    return [name for name in TEXT_FIELDS if name in given - set(known)]


def _timings(times_s: Mapping[str, float]) -> MicroTimings:
    return MicroTimings(**{stage: max(0, round(seconds * 1e6)) for stage, seconds in times_s.items()})
