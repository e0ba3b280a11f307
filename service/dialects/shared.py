"""PURE. Reads requests at paths that several APIs share: at /v1/rerank those of any client, elsewhere by their keys.

Knows which keys belong to whom; does not know headers, and so no user agents.
Invariant: at /v1/rerank no key decides in whose shape the answer comes: it is ours, and has what all of them read.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
import numpy as np

from service.api.answer import encode_answer
from service.api.lenient import keys_of
from service.api.schema import (
    RerankRequest,
    check_query,
    count_clipped,
    decode,
    document_list,
    error_body,
    to_products,
)
from service.dialects import cohere, infinity, tei
from service.dialects.dialect import (
    NO_EFFECT_KEYS,
    AtLeastOne,
    Dialect,
    ErrorReply,
    ScoringRequest,
    ScoringResult,
    finite_logits,
)
from service.domain.query import Document, Query
from service.domain.ranking import RankedProduct, Ranking
from service.errors import Location, Reason, Refused
from service.settings import Settings

NAMED_KEYS: Final = 16
KEY_CHARS: Final = 64
"""Unknown keys that an answer names at most, and characters of each."""


class AnyRequest(RerankRequest):
    """Our own request, with those keys of Cohere (version 1), Jina, vLLM, Voyage and infinity that mean something here."""

    top_k: AtLeastOne | None = None
    raw_scores: bool | None = None
    rank_fields: cohere.RankFields | None = None


class RankFieldsRequest(AnyRequest):
    """A request whose `rank_fields` name the keys of its documents that count."""

    documents: list[str | cohere.Map] | None = None  # type: ignore[assignment]  # keys of any name
    texts: list[str | cohere.Map] | None = None  # type: ignore[assignment]  # as above
    products: list[str | cohere.Map] | None = None  # type: ignore[assignment]  # as above


KNOWN: Final = frozenset(AnyRequest.__struct_fields__) | NO_EFFECT_KEYS
_PLAIN: Final = msgspec.json.Decoder(AnyRequest)
_CHOOSING: Final = msgspec.json.Decoder(RankFieldsRequest)


def read_query(body: bytes, limits: Settings) -> Query:
    """Read a request in our own form or in that of others; raise Refused if it is neither."""
    keys = keys_of(body)
    if "rank_fields" in keys:
        choosing = decode(_CHOOSING, body)
        name, maps = document_list(choosing)
        return _query(choosing, name, cohere.select_fields(maps, choosing.rank_fields, name), keys, limits)
    plain = decode(_PLAIN, body)
    return _query(plain, *document_list(plain), keys, limits)


def _query(
    request: AnyRequest, name: str, documents: Sequence[str | Document], keys: list[str], limits: Settings
) -> Query:
    unknown = [key[:KEY_CHARS] for key in keys if key not in KNOWN]
    if unknown and limits.unknown_keys == "refuse":
        raise Refused(Reason.UNKNOWN_FIELD, (unknown[0],))
    check_query(request.query, limits, "query")
    products = to_products(documents, limits, name)
    top = request.top_k if request.top_n is None else request.top_n
    return Query(
        text=request.query,
        documents=documents,
        products=products,
        top_n=len(documents) if top is None else top,
        return_documents=bool(request.return_documents),
        model=request.model,
        requested_terms=request.requested_terms,
        clipped=count_clipped(products),
        raw_scores=bool(request.raw_scores),
        ignored=unknown[:NAMED_KEYS],
    )


def to_scoring_request(query: Query) -> ScoringRequest:
    """Return a query in our own form as a request to score."""
    return ScoringRequest(
        [(query.text, query.products)],
        partial(_answer, query),
        query.model,
        requested_terms=query.requested_terms,
        ignored=query.ignored,
    )


def _answer(query: Query, scored: ScoringResult) -> bytes:
    ranking = _by_logits(scored) if query.raw_scores else scored.ranking
    return encode_answer(scored.id, scored.model, scored.bundle, query, ranking, scored.times_s)


def _by_logits(scored: ScoringResult) -> Ranking:
    """Return a ranking whose scores are logits; Refused where one is missing."""
    logits = finite_logits(scored)
    labels = {product.index: product.label for product in scored.ranking.products}
    order = np.argsort(-logits, kind="stable").tolist()
    products = [RankedProduct(index, float(logits[index]), labels[index]) for index in order]
    return replace(scored.ranking, products=products)


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:
    """Write an error in our own form."""
    return reason.status, error_body(reason, loc, request_id)


def detect_at_rerank(body: bytes) -> Dialect:
    """Say in which dialect a request to /rerank is: `texts` are TEI's, `documents` infinity's."""
    keys = keys_of(body)
    return infinity.INFINITY if "documents" in keys and "texts" not in keys else tei.RERANK


def detect_at_root(body: bytes) -> Dialect:
    """Say what a request to a Hugging Face endpoint wants: `inputs` are classified, all else is ranked."""
    return tei.PREDICT if "inputs" in keys_of(body) else tei.RERANK
