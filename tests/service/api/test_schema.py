"""Tests of service/api/schema.py."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import Product
from service.api.schema import RerankRequest
from service.dialects.shared import read_query
from service.domain.query import TEXT_FIELDS, text_chars
from service.errors import Reason, Refused
from service.settings import Settings

SETTINGS = Settings(max_documents=5, max_query_chars=20, max_field_chars=50)


def _refusal(body: bytes) -> tuple[Reason, tuple[str | int, ...]]:
    with pytest.raises(Refused) as caught:
        read_query(body, SETTINGS)
    return caught.value.reason, caught.value.loc


def _body(**fields: object) -> bytes:
    return json.dumps({"query": "red shoes", "documents": [], **fields}).encode()


def test_texts_and_objects_become_products() -> None:
    """A plain text is the text field; an object fills the fields it names; bullets are joined by lines."""
    documents = ["red shoe", {"title": "Shoe", "bullets": ["light", "red"], "price": 9.5, "brand": None}]
    query = read_query(_body(documents=documents), SETTINGS)

    assert [Product(text="red shoe"), Product(title="Shoe", bullets="light\nred")] == query.products


@pytest.mark.parametrize("name", ["documents", "texts", "products"])
def test_documents_have_three_names(name: str) -> None:
    """documents, texts and products mean the same."""
    query = read_query(json.dumps({"query": "q", name: ["a"]}).encode(), SETTINGS)

    assert [Product(text="a")] == query.products


def test_defaults() -> None:
    """Without top_n all documents are returned, without their texts, and any model will do."""
    query = read_query(_body(documents=["a", "b"]), SETTINGS)

    assert (2, False, None) == (query.top_n, query.return_documents, query.model)


MALFORMED = {
    "nothing": b"",
    "space": b" ",
    "cut": b'{"query":"a","documents":["b"',
    "two values": b'{"query":"a","documents":[]}{}',
    "trailing comma": b'{"query":"a","documents":[],}',
    "single quotes": b"{'query':'a','documents':[]}",
    "byte order mark": b'\xef\xbb\xbf{"query":"a","documents":[]}',
    "utf-16": '{"query":"a","documents":[]}'.encode("utf-16"),
    "latin-1": '{"query":"é","documents":[]}'.encode("latin-1"),
    "invalid utf-8 in a skipped field": b'{"query":"a","documents":[{"text":"b","x":"\xff"}]}',
    "invalid utf-8 in a skipped name": b'{"query":"a","documents":[{"text":"b","\xff":1}]}',
    "escaped lone surrogate": b'{"query":"\\ud800","documents":[]}',
    "escaped lone surrogate at the end": b'{"query":"a","documents":["\\udfff"]}',
    "reversed surrogates": b'{"query":"\\udc00\\ud800","documents":[]}',
    "surrogate in a skipped field": b'{"query":"a","documents":[{"text":"b","x":"\\ud800"}]}',
    "raw surrogate": b'{"query":"a","documents":["\xed\xa0\x80"]}',
    "raw NUL": b'{"query":"a\x00","documents":[]}',
    "raw newline": b'{"query":"a\n","documents":[]}',
    "NaN": b'{"query":"a","documents":[],"top_n":NaN}',
    "Infinity": b'{"query":"a","documents":[],"top_n":Infinity}',
    "minus Infinity": b'{"query":"a","documents":[],"top_n":-Infinity}',
    "NaN in a skipped field": b'{"query":"a","documents":[{"text":"b","price":NaN}]}',
    "leading zero": b'{"query":"a","documents":[],"top_n":01}',
    "deep": b'{"query":"a","documents":[{"x":' + b"[" * 100_000,
    "deep and closed": b'{"query":"a","documents":[{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json_is_refused(body: bytes) -> None:
    """What is no JSON in UTF-8 is refused as such, wherever the fault stands."""
    assert (Reason.MALFORMED_JSON, ()) == _refusal(body)


INVALID = {
    "no object": (b"[]", ()),
    "null": (b"null", ()),
    "no query": (b'{"documents":[]}', ("query",)),
    "query is null": (_body(query=None), ("query",)),
    "query is a number": (_body(query=1), ("query",)),
    "query out of range": (b'{"query":1e999,"documents":[]}', ("query",)),
    "documents is an object": (_body(documents={}), ("documents",)),
    "a document is a number": (_body(documents=["a", 1]), ("documents", 1)),
    "a document is null": (_body(documents=[None]), ("documents", 0)),
    "a document is a list": (_body(documents=[["a"]]), ("documents", 0)),
    "a field is a number": (_body(documents=[{"title": 1}]), ("documents", 0, "title")),
    "a bullet is a number": (_body(documents=[{"bullets": ["a", 1]}]), ("documents", 0, "bullets", 1)),
    "an id is a fraction": (_body(documents=[{"id": 1.5, "text": "a"}]), ("documents", 0, "id")),
    "an id is too large": (_body(documents=[{"id": 2**64, "text": "a"}]), ("documents", 0, "id")),
    "an id is too long": (_body(documents=[{"id": "x" * 257, "text": "a"}]), ("documents", 0, "id")),
    "top_n is zero": (_body(top_n=0), ("top_n",)),
    "top_n is negative": (_body(top_n=-1), ("top_n",)),
    "top_n is a text": (_body(top_n="1"), ("top_n",)),
    "top_n is a switch": (_body(top_n=True), ("top_n",)),
    "top_n is a fraction": (_body(top_n=1.0), ("top_n",)),
    "top_n out of range": (b'{"query":"a","documents":[],"top_n":1e999}', ("top_n",)),
    "top_n has 5000 digits": (b'{"query":"a","documents":[],"top_n":' + b"9" * 5000 + b"}", ("top_n",)),
    "return_documents is a number": (_body(return_documents=1), ("return_documents",)),
    "model is a number": (_body(model=1), ("model",)),
}


@pytest.mark.parametrize(("body", "loc"), INVALID.values(), ids=INVALID.keys())
def test_wrong_types_and_ranges_are_refused(body: bytes, loc: tuple[str | int, ...]) -> None:
    """A field of the wrong type or range is refused, and the place is told; nothing is converted."""
    assert (Reason.INVALID_FIELD, loc) == _refusal(body)


@pytest.mark.parametrize(
    ("fields", "reason", "loc"),
    [
        ({"query": ""}, Reason.BLANK_QUERY, ("query",)),
        ({"query": " \t\n\u00a0\u3000"}, Reason.BLANK_QUERY, ("query",)),
        ({"query": "x" * 21}, Reason.TEXT_TOO_LONG, ("query",)),
        ({"documents": None}, Reason.MISSING_DOCUMENTS, ()),
        ({"texts": []}, Reason.AMBIGUOUS_DOCUMENTS, ("texts",)),
        ({"documents": ["a"] * 6}, Reason.TOO_MANY_DOCUMENTS, ("documents",)),
        ({"documents": ["a", {}]}, Reason.EMPTY_DOCUMENT, ("documents", 1)),
        ({"documents": [{"id": "x", "price": 1}]}, Reason.EMPTY_DOCUMENT, ("documents", 0)),
        ({"documents": [{"title": None}]}, Reason.EMPTY_DOCUMENT, ("documents", 0)),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    fields: dict[str, object], reason: Reason, loc: tuple[object, ...]
) -> None:
    """A blank query, a query too long, no or too many documents, and missing texts have their own codes."""
    assert (reason, loc) == _refusal(_body(**fields))


def test_a_text_past_the_limit_is_clipped_and_counted() -> None:
    """The model reads the first part of a text only, so a long one costs no list: what is kept is as long as the limit."""
    long = "x" * 51
    documents = [
        long,
        "x" * 50,
        {"title": "a", "brand": long},
        {"bullets": ["x" * 25] * 2},
        {"id": 1, "text": long},
    ]
    query = read_query(_body(documents=documents), SETTINGS)
    referring = read_query(_body(documents=documents), SETTINGS.model_copy(update={"catalogue": "x"}))

    assert ["x" * 50, "x" * 50, "", "", "x" * 50] == [product.text for product in query.products]
    assert ("x" * 50, "x" * 25 + "\n" + "x" * 24) == (query.products[2].brand, query.products[3].bullets)
    assert (4, 4) == (query.clipped, referring.clipped)


def test_a_document_without_a_text_is_an_empty_one_beside_others() -> None:
    """An id without a catalogue says nothing of the product, which does not cost the others their answer."""
    query = read_query(_body(documents=["a", {"id": 7}]), SETTINGS)

    assert [Product(text="a"), Product()] == query.products
    assert (Reason.EMPTY_DOCUMENT, ("documents", 0)) == _refusal(_body(documents=[{"id": 7}, {"id": 8}]))


@pytest.mark.parametrize(
    "text", ["", " ", "\u0000", "\u202e", "e\u0301" * 20, "👩‍👩‍👧‍👦", "漢字", "\ud83d\ude00"]
)
def test_odd_texts_are_taken(text: str) -> None:
    """An empty text, NUL, right-to-left marks, combining marks and emoji are texts like any other."""
    raw = json.dumps({"query": "q", "documents": [text, {"title": text}]}).encode()
    query = read_query(raw, SETTINGS)

    assert [json.loads(json.dumps(text))] * 2 == [query.products[0].text, query.products[1].title]


def test_the_last_of_two_equal_keys_counts() -> None:
    """A repeated key is not an error; its last value counts."""
    assert read_query(b'{"query":"a","query":"b","documents":[]}', SETTINGS).text == "b"


@given(st.binary(max_size=200))
def test_any_bytes_give_a_query_or_a_refusal(body: bytes) -> None:
    """Whatever arrives, parsing returns a query or raises Refused, never anything else."""
    with contextlib.suppress(Refused):
        read_query(body, SETTINGS)


@given(st.lists(st.builds(Product, **dict.fromkeys(Product._fields, st.text())), max_size=5))
def test_characters_are_counted_over_all_fields(products: list[Product]) -> None:
    """The number of characters of a product is the sum over its fields."""
    counted = [sum(len(getattr(each, name)) for name in TEXT_FIELDS) for each in products]

    assert counted == list(map(text_chars, products))


def test_the_three_lists_are_the_only_lists() -> None:
    """Every list of the request is known to the check that exactly one is given."""
    lists = {name for name, kind in RerankRequest.__annotations__.items() if "list[" in str(kind)}

    assert {"documents", "texts", "products"} == lists
