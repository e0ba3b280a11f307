"""PURE. Cohere's rerank, versions 1 and 2; https://docs.cohere.com/reference/rerank.

Knows Cohere's requests, answers and errors; does not know who scores.
Invariant: the model's name is the client's affair, as its SDK insists on one; what Cohere documents is accepted.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from service.api.lenient import as_id, as_text
from service.dialects.dialect import (
    AtLeastOne,
    Dialect,
    ErrorReply,
    ScoringRequest,
    ScoringResult,
    best_first,
    scoring_request,
)
from service.domain.query import TEXT_FIELDS, Document, Identifier
from service.errors import Location, Reason, Refused, error_message
from service.settings import Settings

Map = dict[str, Raw]  # unread, so that it goes back as it came
RankFields = Annotated[list[str], Meta(max_length=64)]  # each is looked up in each document
SEARCH_DOCUMENTS: Final = 100  # Cohere bills a query with up to so many documents as one search unit


class V1Request(Struct):
    """Version 1; a document is a text or a map, of which `rank_fields` names the keys that count."""

    query: str
    documents: list[str | Map]
    top_n: AtLeastOne | None = None
    rank_fields: RankFields | None = None
    return_documents: bool | None = None


class V2Request(Struct):
    """Version 2; maps are taken as well, though Cohere wants them written as YAML."""

    query: str
    documents: list[str | Document]
    top_n: AtLeastOne | None = None


_ID: Final = msgspec.json.Decoder(Identifier | None)


def convert_v1(request: V1Request, limits: Settings) -> ScoringRequest:
    """Return what a request of version 1 asks to score."""
    documents = select_fields(request.documents, request.rank_fields)
    returned = request.documents if request.return_documents else None
    answer = partial(_answer, top=request.top_n, returned=returned, version="1")
    return scoring_request(request.query, documents, limits, answer)


def convert_v2(request: V2Request, limits: Settings) -> ScoringRequest:
    """Return what a request of version 2 asks to score."""
    answer = partial(_answer, top=request.top_n, returned=None, version="2")
    return scoring_request(request.query, request.documents, limits, answer)


def select_fields(
    documents: Sequence[str | Map], rank_fields: Sequence[str] | None, name: str = "documents"
) -> list[str | Document]:
    """Return documents as this service knows them; a chosen key that it does not know is read as text.

    One without a text is an empty one beside others; Refused if none has any, or where an id is none.
    """
    names = tuple(dict.fromkeys(rank_fields or TEXT_FIELDS))
    chosen: list[str | Document | None] = []
    for index, document in enumerate(documents):
        try:
            chosen.append(document if isinstance(document, str) else _chosen(document, names))
        except msgspec.ValidationError:
            raise Refused(Reason.INVALID_FIELD, (name, index, "id")) from None
        except RecursionError:  # nested as deep as the first look could just go
            raise Refused(Reason.MALFORMED_JSON) from None
    if chosen and all(document is None for document in chosen):
        raise Refused(Reason.EMPTY_DOCUMENT, (name, 0))
    return [Document(text="") if document is None else document for document in chosen]


def _chosen(document: Map, names: Sequence[str]) -> Document | None:
    """Return the chosen texts of a map, None if there are none, and no id either."""
    texts = {name: as_text(document[name]) for name in names if name in document}
    known: dict[str, Any] = {name: texts.pop(name) for name in TEXT_FIELDS if name in texts}
    if texts:
        lines = [known.get("text"), *texts.values()]
        known["text"] = "\n".join(text for text in lines if text)
    if "id" in document:
        known["id"] = _ID.decode(msgspec.json.encode(as_id(document["id"])))
    return None if all(value is None for value in known.values()) else Document(**known)


def _answer(
    scored: ScoringResult, *, top: int | None, returned: Sequence[str | Map] | None, version: str
) -> bytes:
    ranking = scored.ranking
    results: list[dict[str, object]] = [
        {"index": index, "relevance_score": score} for index, score in best_first(scored, top)
    ]
    if returned is not None:
        for result, product in zip(results, ranking.products, strict=False):
            document = returned[product.index]
            result["document"] = {"text": document} if isinstance(document, str) else document
    meta = {
        "api_version": {"version": version},
        "billed_units": {"search_units": -(-len(ranking.products) // SEARCH_DOCUMENTS)},
        "tokens": {"input_tokens": ranking.used_tokens, "output_tokens": 0},
    }
    return msgspec.json.encode({"id": scored.id, "results": results, "meta": meta})


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:
    """Write an error as Cohere does."""
    return reason.status, msgspec.json.encode({"id": request_id, "message": error_message(reason, loc)})


V1: Final = Dialect("cohere", V1Request, convert_v1, render_error)
V2: Final = Dialect("cohere", V2Request, convert_v2, render_error)
