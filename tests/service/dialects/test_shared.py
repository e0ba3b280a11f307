"""Tests of service/dialects/shared.py."""

import json
from typing import Any

import pytest

from bundle import Product
from service.dialects import infinity, tei
from service.dialects.shared import (
    KEY_CHARS,
    NAMED_KEYS,
    detect_at_rerank,
    detect_at_root,
    read_query,
    to_scoring_request,
)
from service.domain.budget import RequestedTerms
from service.domain.query import Query
from service.errors import Reason, Refused
from tests.service.dialects.support import LIMITS, TEXTS, scored, told

STRICT = LIMITS.model_copy(update={"unknown_keys": "refuse"})


def _query(**fields: object) -> Query:
    return read_query(json.dumps({"query": "red shoes", "documents": TEXTS, **fields}).encode(), LIMITS)


def _told(**fields: object) -> Any:
    return told(to_scoring_request(_query(**fields)))


FORMS = {
    "own": {"top_n": 2, "budget_ms": 50},
    "cohere": {"top_n": 2, "max_chunks_per_doc": 1, "rank_fields": ["text"], "priority": 1},
    "jina": {"top_n": 2, "return_documents": False},
    "voyage": {"top_k": 2, "truncation": True},
    "voyage, nothing given": {"top_k": 2, "truncation": None},
    "infinity": {"top_n": 2, "raw_scores": False},
    "vllm": {"top_n": 2, "truncate_prompt_tokens": -1, "user": "u", "request_id": "r"},
    "xinference": {"top_n": 2, "return_len": None, "overlap_tokens": 80, "kwargs": "{}"},
}


@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS.keys())
def test_no_key_decides_whose_answer_it_is(fields: dict[str, Any]) -> None:
    """Whoever asks gets what all of them read: results and data, the same scores, and tokens under every name."""
    answer = _told(model="any", **fields)
    ranked = [{key: one[key] for key in ("index", "relevance_score")} for one in answer["results"]]

    assert [1, 2] == [one["index"] for one in ranked]
    assert answer["data"] == answer["results"]
    assert {"prompt_tokens": 22, "completion_tokens": 0, "total_tokens": 22}.items() <= answer[
        "usage"
    ].items()


def test_who_names_no_model_gets_our_form_alone() -> None:
    """No client of another API leaves out the model, so nobody else pays for what they read."""
    answer = _told()

    assert ["id", "model", "bundle", "results", "degraded", "coverage", "usage", "timings_ms"] == list(answer)
    assert {"documents", "tokens", "truncated", "cached"} == set(answer["usage"])


def test_documents_come_back_as_each_reads_them() -> None:
    """`results` have objects, as Cohere's and Jina's clients read, and `data` has texts as Voyage's do."""
    answer = _told(model="any", return_documents=True, documents=["a", {"title": "b"}, "c"])

    assert [{"title": "b"}, {"text": "c"}, {"text": "a"}] == [one["document"] for one in answer["results"]]
    assert [{"title": "b"}, "c", "a"] == [one["document"] for one in answer["data"]]


def test_raw_scores_are_logits() -> None:
    """On request the scores are the model's own numbers, and one that is missing is not made up."""
    ask = to_scoring_request(_query(raw_scores=True, top_n=2))

    assert [(1, 3.0), (2, 1.0)] == [(one["index"], one["relevance_score"]) for one in told(ask)["results"]]
    with pytest.raises(Refused) as caught:
        ask.answer(scored([float("nan"), 3.0, 1.0]))
    assert caught.value.reason is Reason.UNSCORED


def test_unknown_keys_are_named_and_bounded() -> None:
    """A key that nobody knows is named in the answer, cut, and only so many of them; a null is not given."""
    assert _told(budgetms=5, max_chunks_per_doc=1, model="x", other=None)["ignored"] == ["budgetms"]
    many = _query(**{f"{number:02}" + "x" * 100: 1 for number in range(40)})
    assert (NAMED_KEYS, {KEY_CHARS}) == (len(many.ignored), set(map(len, many.ignored)))
    assert "ignored" not in _told()


@pytest.mark.parametrize(("key", "named"), [("budgetms", "budgetms"), ("x" * 100, "x" * KEY_CHARS)])
def test_unknown_keys_are_refused_by_name_if_so_set(key: str, named: str) -> None:
    """With unknown_keys=refuse the place of the fault is the key; what others document is taken all the same."""
    body = {"query": "q", "documents": ["a"], "truncation": True, "other": None}
    with pytest.raises(Refused) as caught:
        read_query(json.dumps({**body, key: 1}).encode(), STRICT)

    assert (Reason.UNKNOWN_FIELD, (named,)) == (caught.value.reason, caught.value.loc)
    assert read_query(json.dumps(body).encode(), STRICT).ignored == []


def test_a_request_of_others_has_our_options_too() -> None:
    """Beside keys of others a budget, a priority and another name of the list are read as in our own form."""
    body = (
        b'{"query":"q","texts":["a"],"top_k":9,"budget_ms":5,"priority":1,"on_failure":"error","model":"m"}'
    )
    query = read_query(body, LIMITS)

    assert (RequestedTerms(5.0, "autocomplete", "error"), "m", 9) == (
        query.requested_terms,
        query.model,
        query.top_n,
    )
    assert [Product(text="a")] == query.products


@pytest.mark.parametrize(
    ("body", "reason", "loc"),
    [
        (b'{"query":"q","top_k":1}', Reason.MISSING_DOCUMENTS, ()),
        (b'{"query":"q","top_k":1,"texts":[],"documents":[]}', Reason.AMBIGUOUS_DOCUMENTS, ("texts",)),
        (b'{"query":" ","top_k":1,"documents":[]}', Reason.BLANK_QUERY, ("query",)),
        (b'{"query":"q","top_k":0,"documents":[]}', Reason.INVALID_FIELD, ("top_k",)),
        (b'{"top_k":1,"documents":[]}', Reason.INVALID_FIELD, ("query",)),
        (b'{"query":"q","documents":[{"x":1}],"rank_fields":["y"]}', Reason.EMPTY_DOCUMENT, ("documents", 0)),
        (b'{"query":"q","top_k":1', Reason.MALFORMED_JSON, ()),
    ],
)
def test_what_is_wrong_is_refused(body: bytes, reason: Reason, loc: tuple[str | int, ...]) -> None:
    """A fault has the reason and the place that it has in our own form."""
    with pytest.raises(Refused) as caught:
        read_query(body, LIMITS)

    assert (reason, loc) == (caught.value.reason, caught.value.loc)


def test_the_other_paths_go_by_their_keys() -> None:
    """At /rerank `documents` are infinity's and all else TEI's; at / `inputs` are to be classified; null is no key."""
    assert infinity.INFINITY is detect_at_rerank(b'{"query":"q","documents":[]}')
    assert infinity.INFINITY is detect_at_rerank(b'{"query":"q","documents":[],"texts":null}')
    assert tei.RERANK is detect_at_rerank(b'{"query":"q","texts":[]}')
    assert tei.RERANK is detect_at_rerank(b'{"texts":[],"documents":[]}')
    assert tei.RERANK is detect_at_rerank(b"nonsense")
    assert tei.PREDICT is detect_at_root(b'{"inputs":[]}')
    assert tei.RERANK is detect_at_root(b'{"query":"q","documents":[]}')
    assert tei.RERANK is detect_at_root(b'{"query":"q","documents":[],"inputs":null}')


def test_rank_fields_choose() -> None:
    """Cohere's rank_fields means here what it means there."""
    query = _query(documents=[{"title": "a", "brand": "b"}], rank_fields=["brand"])

    assert [Product(brand="b")] == query.products
