"""Tests of service/dialects/cohere.py."""

import json

import pytest

from bundle import Product
from service.dialects.cohere import V1, V2
from service.errors import Reason, Refused
from tests.service.dialects.support import LIMITS, LOGITS, TEXTS, asked, refusal, refused, scored, told

MAPS = [{"title": "red", "author": "Ann", "year": 1999}, {"title": "blue", "text": "mug", "author": "Bo"}]


def test_version_1_answers_as_cohere_does() -> None:
    """Results with index and score, documents on request, and the meta part with version and cost."""
    answer = told(
        asked(V1, top_n=2, return_documents=True, model="rerank-v3.5", max_chunks_per_doc=10), scored()
    )

    assert ["id", "results", "meta"] == list(answer)
    assert [(1, TEXTS[1]), (2, TEXTS[2])] == [
        (result["index"], result["document"]["text"]) for result in answer["results"]
    ]
    assert ("1", 1, 22) == (
        answer["meta"]["api_version"]["version"],
        answer["meta"]["billed_units"]["search_units"],
        answer["meta"]["tokens"]["input_tokens"],
    )


def test_version_2_never_returns_documents() -> None:
    """Version 2 has index and score only, whatever else is asked for."""
    answer = told(asked(V2, model="rerank-v3.5", max_tokens_per_doc=4096, priority=0, return_documents=True))

    assert [{"index", "relevance_score"}] * 3 == [set(result) for result in answer["results"]]
    assert answer["meta"]["api_version"] == {"version": "2"}


def test_a_map_goes_back_as_it_came() -> None:
    """A document that is a map keeps the keys that mean nothing here, however their values are written."""
    body = b'{"query":"q","documents":[{"text":"red","n":1e5,"x":[null]}],"return_documents":true}'
    raw = V1.parse(body, LIMITS).answer(scored(LOGITS[:1]))

    assert b'"document":{"text":"red","n":1e5,"x":[null]}' in raw


@pytest.mark.parametrize(
    ("rank_fields", "products"),
    [
        (None, [Product(title="red"), Product(title="blue", text="mug")]),
        (["year"], [Product(text="1999"), Product()]),
        (["title"], [Product(title="red"), Product(title="blue")]),
        (["author", "title", "author"], [Product(title="red", text="Ann"), Product(title="blue", text="Bo")]),
        (["text", "author"], [Product(text="Ann"), Product(text="mug\nBo")]),
    ],
)
def test_rank_fields_choose(rank_fields: list[str] | None, products: list[Product]) -> None:
    """The chosen keys count; one that is no field here is read as text."""
    ask = asked(V1, documents=MAPS, rank_fields=rank_fields)

    assert [("red shoes", products)] == list(ask.groups)


@pytest.mark.parametrize(
    ("fields", "reason", "loc"),
    [
        ({"documents": MAPS, "rank_fields": ["none"]}, Reason.EMPTY_DOCUMENT, ("documents", 0)),
        ({"documents": ["a", {"text": "b", "id": [1]}]}, Reason.INVALID_FIELD, ("documents", 1, "id")),
        ({"documents": MAPS, "rank_fields": ["x"] * 65}, Reason.INVALID_FIELD, ("rank_fields",)),
        ({"documents": ["a"] * 6}, Reason.TOO_MANY_DOCUMENTS, ("documents",)),
        ({"documents": None}, Reason.INVALID_FIELD, ("documents",)),
        ({"query": ""}, Reason.BLANK_QUERY, ("query",)),
        ({"top_n": 0}, Reason.INVALID_FIELD, ("top_n",)),
    ],
)
def test_what_is_wrong_is_refused(
    fields: dict[str, object], reason: Reason, loc: tuple[str | int, ...]
) -> None:
    """A fault is told with its place."""
    with pytest.raises(Refused) as caught:
        asked(V1, **fields)

    assert (reason, loc) == (caught.value.reason, caught.value.loc)


def test_half_a_surrogate_pair_in_a_map_is_malformed() -> None:
    """A text is checked also where it is not read."""
    with pytest.raises(Refused) as caught:
        V1.parse(rb'{"query":"q","documents":[{"x":"\ud800"}]}', LIMITS)

    assert caught.value.reason is Reason.MALFORMED_JSON


def test_depth_is_read_or_refused() -> None:
    """However deep a map's value is nested, near the interpreter's limit too, it is no text or no JSON."""
    outcomes = set()
    for depth in range(850, 1010):
        value = b"[" * depth + b"]" * depth
        try:
            ask = V1.parse(b'{"query":"q","documents":[{"title":' + value + b"}]}", LIMITS)
        except Refused as refusal:
            outcomes.add(refusal.reason)
        else:
            assert [("q", [Product()])] == list(ask.groups)
    assert {Reason.MALFORMED_JSON} == outcomes


def test_odd_values_of_a_map_are_texts() -> None:
    """A number is its text, a list its texts by lines, and the map comes back as it came."""
    body = b'{"query":"q","documents":[{"title":1.50,"brand":["a",null,2],"x":1},{}],"return_documents":true}'
    ask = V1.parse(body, LIMITS)

    assert [("q", [Product(title="1.50", brand="a\n2"), Product(text="")])] == list(ask.groups)
    assert b'"document":{"title":1.50,"brand":["a",null,2],"x":1}' in ask.answer(scored(LOGITS[:2]))


def test_an_id_is_taken() -> None:
    """Our own `id` may stand in a map, and has to be a text or a number."""
    assert asked(V1, documents=[{"text": "a", "id": 7}, {"text": "a", "id": 1.5}]).groups
    with pytest.raises(Refused):
        asked(V1, documents=[{"text": "a", "id": True}])


def test_documents_of_version_2_may_be_maps() -> None:
    """A map is taken by its fields."""
    assert [("red shoes", [Product(title="red")])] == list(asked(V2, documents=[{"title": "red"}]).groups)


def test_errors_have_a_message() -> None:
    """Cohere's clients read the status and `message`."""
    assert (422, {"id": "r1", "message": "The query is blank. (at query)"}) == refusal(V1, query=" ")
    assert (429, "r1") == (refused(V2, Reason.OVERLOADED)[0], refused(V2, Reason.OVERLOADED)[1]["id"])
    assert json.dumps(refused(V2, Reason.NOT_READY)[1])
