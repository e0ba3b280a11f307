"""Tests of service/dialects/shared.py."""

import json

import pytest

from bundle import Product
from service.dialects import infinity, tei, voyage
from service.dialects.shared import SHARED, at_rerank, at_root, at_v1_rerank
from service.errors import Reason, Refused
from tests.service.dialects.support import TEXTS, asked, refused, told

OWN = {"query": "q", "documents": ["a"], "top_n": 1, "model": "m", "return_documents": True}


@pytest.mark.parametrize(
    ("fields", "dialect"),
    [
        ({}, SHARED),
        ({"rank_fields": ["title"]}, SHARED),
        ({"unknown": 1}, SHARED),
        ({"top_k": 1}, voyage.VOYAGE),
        ({"top_k": None}, voyage.VOYAGE),
        ({"truncation": True}, voyage.VOYAGE),
        ({"raw_scores": False}, infinity.INFINITY),
        ({"top_k": 1, "raw_scores": False}, voyage.VOYAGE),
    ],
)
def test_a_key_tells_who_speaks(fields: dict[str, object], dialect: object) -> None:
    """top_k and truncation are Voyage's, raw_scores is infinity's; all else is ours."""
    assert dialect is at_v1_rerank(json.dumps({**OWN, **fields}).encode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"top_k"', b'{"query":"top_k"}', b'{"a":{"top_k":1}}', b"\xff"]
)
def test_a_word_elsewhere_is_no_key(body: bytes) -> None:
    """Only a key of the request itself tells; what cannot be read is answered in our form."""
    assert at_v1_rerank(body) is SHARED


def test_the_other_paths_go_by_their_keys() -> None:
    """At /rerank `documents` are infinity's and all else TEI's; at / `inputs` are to be classified."""
    assert infinity.INFINITY is at_rerank(b'{"query":"q","documents":[]}')
    assert tei.RERANK is at_rerank(b'{"query":"q","texts":[]}')
    assert tei.RERANK is at_rerank(b'{"texts":[],"documents":[]}')
    assert tei.RERANK is at_rerank(b"nonsense")
    assert tei.PREDICT is at_root(b'{"inputs":[]}')
    assert tei.RERANK is at_root(b'{"query":"q","documents":[]}')


def test_documented_keys_of_others_are_taken() -> None:
    """Keys of Cohere, Jina and vLLM beside our own are ignored, and the answer is ours."""
    ask = asked(
        SHARED,
        model="tiny",
        return_documents=True,
        max_chunks_per_doc=10,
        max_tokens_per_doc={"odd": [1]},
        priority=1,
        truncate_prompt_tokens=-1,
        user="u",
    )
    answer = told(ask)

    assert ask.model == "tiny"
    assert ["id", "model", "bundle", "results", "degraded", "coverage", "usage", "timings_ms"] == list(answer)
    assert {"text": TEXTS[1]} == answer["results"][0]["document"]


def test_rank_fields_choose() -> None:
    """Cohere's rank_fields means here what it means there."""
    ask = asked(SHARED, documents=[{"title": "a", "brand": "b"}], rank_fields=["brand"])

    assert [("red shoes", [Product(brand="b")])] == list(ask.groups)


def test_an_unknown_key_stays_unknown() -> None:
    """What nobody documents is refused, in our own form."""
    with pytest.raises(Refused) as caught:
        asked(SHARED, max_chunks_per_doc=1, top_N=3)
    status, body = refused(SHARED, caught.value.reason, caught.value.loc)

    assert (422, Reason.UNKNOWN_FIELD.message, [], "r1") == (status, body["message"], body["loc"], body["id"])
