"""Tests of service/api/lenient.py."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from service.api import lenient
from service.api.lenient import (
    as_id,
    as_text,
    keys_of,
    normalize_product,
    normalized,
    replace_lone_surrogates,
)

TEXTS = st.text(st.characters(codec="utf-8"))


def _mended(**fields: object) -> Any:
    whole = normalized(json.dumps(fields).encode())
    assert whole is not None
    return json.loads(whole)


@given(st.text() | st.text("a\\u\ud83d\ude00\ud800"))
def test_half_a_surrogate_pair_is_u_fffd(text: str) -> None:
    """Every escape of half a pair becomes one of U+FFFD, pairs and all else stay, so that the rest reads as it was."""
    whole = replace_lone_surrogates(json.dumps(text).encode())

    pair_up = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert pair_up == msgspec.json.decode(whole)


@pytest.mark.parametrize(
    ("odd", "meant"),
    [
        (["a", 5, 1.50, -1e5], ["a", "5", "1.5", "-100000.0"]),
        ([None, True, ["a", 1]], ["", "", "a\n1"]),
        ([{"title": 5, "brand": ["a", None, "b"]}], [{"title": "5", "brand": "a\nb"}]),
        ([{"text": "a", "color": {"name": "red"}, "category": True}], [{"text": "a"}]),
        (
            [{"text": "a", "bullets": ["x", None, 2], "price": [1]}],
            [{"text": "a", "bullets": "x\n2", "price": [1]}],
        ),
        ([{"text": "a", "id": None}, {"text": "a", "id": 7.5}], [{"text": "a"}, {"text": "a", "id": "7.5"}]),
        (["a", {}, {"price": 1}, {"id": 1}], ["a", {"text": ""}, {"price": 1, "text": ""}, {"id": 1}]),
    ],
)
def test_a_document_is_read_as_it_was_meant(odd: list[object], meant: list[object]) -> None:
    """Numbers are texts, lists are joined, what is no text is not there, and every document keeps its place."""
    assert _mended(documents=odd)["documents"] == meant


def test_documents_without_any_text_stay_without() -> None:
    """Where no document has a text its keys are other ones than ours, which is to be refused, not ranked."""
    assert _mended(documents=[{"x": 1}, {}])["documents"] == [{"x": 1}, {}]


@pytest.mark.parametrize(
    ("odd", "meant"),
    [
        ({"query": 5, "top_n": None, "x": 1}, {"query": "5", "x": 1}),
        (
            {"query": {"text": 5}, "passages": [{"text": 1}]},
            {"query": {"text": "5"}, "passages": [{"text": "1"}]},
        ),
        (
            {"top_n": "2", "return_documents": "True", "raw_scores": "false"},
            {"top_n": 2, "return_documents": True, "raw_scores": False},
        ),
        (
            {"top_n": "02", "return_documents": "yes", "x": "1"},
            {"top_n": "02", "return_documents": "yes", "x": "1"},
        ),
        ({"text_1": 1, "text_2": [2, "a"]}, {"text_1": "1", "text_2": ["2", "a"]}),
        ({"inputs": [["q", 5], ["q", None]]}, {"inputs": [["q", "5"], ["q", ""]]}),
        ({"inputs": ["q", 5]}, {"inputs": ["q", "5"]}),
    ],
)
def test_nulls_are_not_there_and_texts_are_texts(odd: dict[str, object], meant: dict[str, object]) -> None:
    """A null is dropped whatever its key, and a number becomes text where a text belongs."""
    assert _mended(**odd) == meant


@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS) | st.booleans() | st.integers(), max_size=5))
def test_what_is_not_odd_is_not_touched(fields: dict[str, object]) -> None:
    """A request without oddities is none to be mended."""
    fields = {
        name: value
        for name, value in fields.items()
        if name not in {*lenient.TEXTS, *lenient.OPTIONS, lenient.PAIRS}
    }
    body = msgspec.json.encode({**fields, "query": "q", "documents": ["a", {"title": "b", "id": 7}]})

    assert normalized(body) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'{"a":', b'{"\xff": 1}', b'{"a":' + b"[" * 100_000])
def test_what_is_no_object_cannot_be_mended(body: bytes) -> None:
    """It is left to whoever refuses it, and has no keys."""
    assert normalized(body) is None
    assert keys_of(body) == []


@given(st.binary(max_size=60) | st.text('{}[]":,5a\\u d83', max_size=60).map(str.encode))
def test_any_bytes_are_mended_or_not(body: bytes) -> None:
    """Whatever arrives, what comes out is JSON, or nothing."""
    whole = normalized(body)

    assert whole is None or isinstance(json.loads(whole), dict)


def test_a_key_that_is_null_is_not_given() -> None:
    """The keys of a request are those with a value, those with half a character among them."""
    assert keys_of(rb'{"a": null, "b": 1, "\ud83d": []}') == ["b", "\ufffd"]


@pytest.mark.parametrize("number", [0, 7, -(2**63), 2**63 - 1])
def test_an_integer_of_64_bits_stays_an_id(number: int) -> None:
    """It comes back unchanged."""
    assert as_id(Raw(b"%d" % number)) == Raw(b"%d" % number)


def test_a_text_is_read_from_any_value() -> None:
    """A number is as it was written, whatever its size."""
    assert as_text(Raw(b"9" * 5_000)) == "9" * 5_000
    assert json.loads(normalize_product(b'{"id": 1, "title": 1e999}')) == {"id": 1, "title": "1e999"}
