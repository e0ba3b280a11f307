"""PURE. Tells apart what arrives at a path that several APIs share, by the keys of the request alone.

Knows which keys belong to whom; does not know headers, and so no user agents.
Invariant: a request in our own form never gets here, and what is not told apart is answered in our own form.
"""

from functools import partial
from typing import Final

import msgspec
from msgspec import Raw, Struct

from service.api.answer import encode_answer
from service.api.schema import ErrorAnswer, Query, decode
from service.dialects import cohere, infinity, tei, voyage
from service.dialects.dialect import Ask, AtLeastOne, Dialect, Refusal, Scored, one_query
from service.errors import Reason, Refused
from service.settings import Settings

VOYAGE_KEYS: Final = {"top_k", "truncation"}
INFINITY_KEYS: Final = {"raw_scores"}
IGNORED: Final = Raw(b"null")
_KEYS: Final = msgspec.json.Decoder(dict[str, Raw])


class Request(Struct, forbid_unknown_fields=True):
    """Our own request in the words of Cohere (version 1), Jina and vLLM; all but the first six are ignored."""

    query: str
    documents: list[str | cohere.Map]
    top_n: AtLeastOne | None = None
    return_documents: bool | None = None
    model: str | None = None
    rank_fields: cohere.RankFields | None = None
    max_chunks_per_doc: Raw = IGNORED
    max_tokens_per_doc: Raw = IGNORED
    max_tokens_per_query: Raw = IGNORED
    priority: Raw = IGNORED
    request_id: Raw = IGNORED
    truncate_prompt_tokens: Raw = IGNORED
    truncation_side: Raw = IGNORED
    user: Raw = IGNORED


_REQUEST: Final = msgspec.json.Decoder(Request)


def parse(body: bytes, limits: Settings) -> Ask:
    """Read a request that has documented keys of other APIs beside our own."""
    request = decode(_REQUEST, body)
    documents = cohere.chosen_fields(request.documents, request.rank_fields)
    products = one_query(request.query, documents, limits, "documents")
    query = Query(
        text=request.query,
        documents=documents,
        products=products,
        top_n=len(documents) if request.top_n is None else request.top_n,
        return_documents=bool(request.return_documents),
        model=request.model,
    )
    return own(query)


def own(query: Query) -> Ask:
    """Return a query in our own form as a request to score."""
    return Ask([(query.text, query.products)], partial(_answer, query), query.model, wish=query.wish)


def _answer(query: Query, scored: Scored) -> bytes:
    return encode_answer(scored.id, scored.model, scored.bundle, query, scored.ranking, scored.times_s)


def refuse(reason: Reason, loc: tuple[str | int, ...], request_id: str) -> Refusal:
    """Write an error in our own form."""
    answer = ErrorAnswer(error=reason.code, message=reason.message, loc=list(loc), id=request_id)
    return reason.status, msgspec.json.encode(answer)


SHARED: Final = Dialect(parse, refuse)


def at_v1_rerank(body: bytes) -> Dialect:
    """Say in which dialect a request to /v1/rerank is that our own parser has refused, or may not read."""
    keys = _keys(body)
    if keys & VOYAGE_KEYS:
        return voyage.VOYAGE
    return infinity.INFINITY if keys & INFINITY_KEYS else SHARED


def at_rerank(body: bytes) -> Dialect:
    """Say in which dialect a request to /rerank is: `texts` are TEI's, `documents` infinity's."""
    keys = _keys(body)
    return infinity.INFINITY if "documents" in keys and "texts" not in keys else tei.RERANK


def at_root(body: bytes) -> Dialect:
    """Say what a request to a Hugging Face endpoint wants: `inputs` are classified, all else is ranked."""
    return tei.PREDICT if "inputs" in _keys(body) else tei.RERANK


def _keys(body: bytes) -> set[str]:
    """Return the keys of a body; none of one that is no JSON object, which whoever parses it refuses."""
    try:
        keys: dict[str, Raw] = decode(_KEYS, body)
    except Refused:
        return set()
    return set(keys)
