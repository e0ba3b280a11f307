"""Tests of service/api/answer.py."""

import json
import re

import pytest

from bundle import Product
from service.api.answer import encode_answer
from service.domain.query import Document, Query
from service.domain.ranking import RankedProduct, Ranking, Unscored

TIMES = {"receive": 0.0001, "parse": 0.00012, "tokenize": 0.0, "queue": 1e-9, "infer": 1.5, "total": 2.0}


def _encode(query: Query, ranking: Ranking) -> bytes:
    return encode_answer("id", "m@1", "0123456789ab", query, ranking, TIMES)


@pytest.mark.parametrize("score", [1.0, 1e-6, 0.1, 0.999999, 1 / 3])
def test_a_score_is_a_plain_decimal(score: float) -> None:
    """Whatever its value, a score has a dot, six decimals and no exponent."""
    query = Query("q", ["a"], [Product(text="a")], 1, return_documents=False, model=None)
    raw = _encode(query, Ranking(products=[RankedProduct(0, score, "exact")]))

    assert re.search(rb'"relevance_score":[01]\.[0-9]{6},', raw)


def test_ids_and_documents_come_back_as_given() -> None:
    """An id keeps its type, and a returned document has the fields that were given."""
    documents = ["plain", Document(id=7, title="t"), Document(id="x", bullets=["a", "b"])]
    query = Query("q", documents, [Product()] * 3, 3, return_documents=True, model=None)
    places = [RankedProduct(index, 0.5, "exact") for index in range(3)]
    results = json.loads(_encode(query, Ranking(products=places)))["results"]

    assert [None, 7, "x"] == [result.get("id") for result in results]
    assert [{"text": "plain"}, {"id": 7, "title": "t"}, {"id": "x", "bullets": ["a", "b"]}] == [
        result["document"] for result in results
    ]


def test_results_are_json_whatever_the_ids() -> None:
    """Ids of any characters and numbers come back as they are, and an odd label is a string."""
    ids = ["\x01" * 256, 'a "quoted" id', "\u00e9\u2028", -(2**63), 2**63 - 1, None]
    documents = [Document(id=each, title="t") for each in ids]
    query = Query("q", documents, [Product()] * 6, 6, return_documents=False, model=None)
    places = [RankedProduct(index, 0.5, 'odd "label"') for index in range(6)]
    rows = json.loads(_encode(query, Ranking(products=places)))["results"]

    assert ids == [row.get("id") for row in rows]
    assert {'odd "label"'} == {row["label"] for row in rows}


def test_coverage_is_the_scored_share() -> None:
    """Coverage counts all documents, also those that top_n cuts off, and is always a decimal."""
    query = Query("q", ["a"] * 4, [Product()] * 4, 1, return_documents=False, model=None)
    places = [*(RankedProduct(index, 0.5, "exact") for index in range(3)), RankedProduct(3, 0.0, None)]
    told = json.loads(_encode(query, Ranking(products=places, unscored=Unscored(nonfinite=1))))

    assert (0.75, "nonfinite", 1) == (told["coverage"], told["degraded"], len(told["results"]))
    assert b'"coverage":1.0' in _encode(query, Ranking())
