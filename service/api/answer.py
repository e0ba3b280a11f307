"""Writes the answer to a ranked query as JSON.

Knows the answer's types; does not know how anything was scored.
Invariant: a score is written as a decimal with a dot and without an exponent, whatever its value.
"""

from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec import UNSET, Raw

from service.api.schema import Document, Query, RerankAnswer, Result, Timings, Usage
from service.native import ranking as native
from service.native.session import is_usable
from service.scoring.call import Ranking
from service.scoring.ranking import Place, Places, decimal


def encode_answer(  # noqa: PLR0913, PLR0917  each is one field of the answer
    request_id: str, model: str, bundle: str, query: Query, ranking: Ranking, times_s: Mapping[str, float]
) -> bytes:
    """Return the answer's JSON; times are in seconds."""
    documents = len(ranking.places)
    places = ranking.places[: query.top_n]
    answer = RerankAnswer(
        id=request_id,
        model=model,
        bundle=bundle,
        results=[_result(place, query) for place in places]
        if query.return_documents
        else cast("list[Result]", _bare_results(places, query)),
        degraded=ranking.unscored.reason,
        coverage=1.0 - ranking.unscored.total / documents if documents else 1.0,
        usage=Usage(
            documents=documents, tokens=ranking.tokens, truncated=ranking.truncated, cached=ranking.cached
        ),
        timings_ms=Timings(**{stage: round(seconds * 1000, 3) for stage, seconds in times_s.items()}),
    )
    return msgspec.json.encode(answer)


def _bare_results(places: Places, query: Query) -> Raw:
    """Return the JSON of results without their documents: that of many `Result`, at a fraction of their time."""
    ids = [None if isinstance(document, str) else document.id for document in query.documents]
    write = native.write_results if is_usable() else write_results
    return Raw(write(places, ids))


def write_results(places: Places, ids: list[str | int | None]) -> bytes:
    """Return the results of places as JSON; `ids` are in the order of the request."""
    rows = []
    for index, score, label in zip(places.indices, places.scores, places.labels, strict=True):
        own_id = "" if ids[index] is None else f'"id":{_json(ids[index])},'
        rows.append(f'{{"index":{index},{own_id}"relevance_score":{decimal(score)},"label":{_json(label)}}}')
    return f"[{','.join(rows)}]".encode()


def _json(value: str | int | None) -> str:
    return msgspec.json.encode(value).decode()


def _result(place: Place, query: Query) -> Result:
    document = query.documents[place.index]
    fields = Document(text=document) if isinstance(document, str) else document
    return Result(
        index=place.index,
        id=UNSET if fields.id is None else fields.id,
        relevance_score=Raw(decimal(place.score)),
        label=place.label,
        document=fields,
    )
