"""PURE. Cohere's rerank, versions 1 and 2; https://docs.cohere.com/reference/rerank.

Knows Cohere's requests, answers and errors; does not know who scores.
Invariant: the model's name is the client's affair, as its SDK insists on one; what Cohere documents is accepted.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from service.api.schema import TEXT_FIELDS, Document, decode
from service.dialects.dialect import (
    Ask,
    AtLeastOne,
    Dialect,
    Refusal,
    Scored,
    ask_one,
    best_first,
    said,
)
from service.errors import Reason, Refused
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


_V1: Final = msgspec.json.Decoder(V1Request)
_V2: Final = msgspec.json.Decoder(V2Request)


def parse_v1(body: bytes, limits: Settings) -> Ask:
    """Read a request of version 1."""
    request = decode(_V1, body)
    documents = chosen_fields(request.documents, request.rank_fields)
    returned = request.documents if request.return_documents else None
    answer = partial(_answer, top=request.top_n, returned=returned, version="1")
    return ask_one(request.query, documents, limits, answer)


def parse_v2(body: bytes, limits: Settings) -> Ask:
    """Read a request of version 2."""
    request = decode(_V2, body)
    answer = partial(_answer, top=request.top_n, returned=None, version="2")
    return ask_one(request.query, request.documents, limits, answer)


def chosen_fields(documents: Sequence[str | Map], rank_fields: Sequence[str] | None) -> list[str | Document]:
    """Return documents as this service knows them; a chosen key that it does not know is read as text."""
    chosen: list[str | Document] = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            chosen.append(document)
            continue
        try:
            chosen.append(msgspec.convert(_known(document, rank_fields), Document))
        except (msgspec.ValidationError, RecursionError) as error:
            raise Refused(_fault(error), ("documents", index)) from None
    return chosen


def _fault(error: Exception) -> Reason:
    if isinstance(error, RecursionError):
        return Reason.MALFORMED_JSON  # nested as deep as the first look could just go
    return Reason.EMPTY_DOCUMENT if str(error).startswith("no text") else Reason.INVALID_FIELD


def _known(document: Map, rank_fields: Sequence[str] | None) -> dict[str, object]:
    names = [name for name in dict.fromkeys(rank_fields or TEXT_FIELDS) if name in document]
    known: dict[str, object] = {
        name: msgspec.json.decode(document[name]) for name in names if name in TEXT_FIELDS
    }
    others = [msgspec.json.decode(document[name], type=str) for name in names if name not in TEXT_FIELDS]
    if others:
        own = msgspec.json.decode(document["text"], type=str | None) if "text" in known else None
        known["text"] = "\n".join(others if own is None else [own, *others])
    if "id" in document:
        known["id"] = msgspec.json.decode(document["id"])
    return known


def _answer(scored: Scored, *, top: int | None, returned: Sequence[str | Map] | None, version: str) -> bytes:
    ranking = scored.ranking
    results: list[dict[str, object]] = [
        {"index": index, "relevance_score": score} for index, score in best_first(scored, top)
    ]
    if returned is not None:
        for result, place in zip(results, ranking.places, strict=False):
            document = returned[place.index]
            result["document"] = {"text": document} if isinstance(document, str) else document
    meta = {
        "api_version": {"version": version},
        "billed_units": {"search_units": -(-len(ranking.places) // SEARCH_DOCUMENTS)},
        "tokens": {"input_tokens": ranking.tokens, "output_tokens": 0},
    }
    return msgspec.json.encode({"id": scored.id, "results": results, "meta": meta})


def refuse(reason: Reason, loc: tuple[str | int, ...], request_id: str) -> Refusal:
    """Write an error as Cohere does."""
    return reason.status, msgspec.json.encode({"id": request_id, "message": said(reason, loc)})


V1: Final = Dialect(parse_v1, refuse)
V2: Final = Dialect(parse_v2, refuse)
