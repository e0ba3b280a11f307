"""Tests of service/dialects/infinity.py."""

import pytest

from service.dialects.infinity import INFINITY
from service.errors import Reason, Refused
from tests.service.dialects.support import TEXTS, asked, refusal, refused, scored, told


def test_infinity_answers_as_it_does() -> None:
    """The answer has all of infinity's keys; a document is a string."""
    answer = told(asked(INFINITY, model="default/not-specified", return_documents=True, top_n=1))

    assert ["object", "results", "model", "usage", "id", "created"] == list(answer)
    assert [(1, TEXTS[1])] == [(result["index"], result["document"]) for result in answer["results"]]
    assert ("rerank", 1_700_000_000) == (answer["object"], answer["created"])
    assert {"prompt_tokens": 22, "total_tokens": 22, "completion_tokens": 0} == answer["usage"]


def test_raw_scores_are_logits() -> None:
    """On request the scores are what the model computed, in the same order."""
    answer = told(asked(INFINITY, raw_scores=True))

    assert [(1, 3.0), (2, 1.0), (0, -2.0)] == [
        (result["index"], result["relevance_score"]) for result in answer["results"]
    ]


def test_a_missing_logit_is_refused() -> None:
    """A raw score that does not exist is not made up."""
    ask = asked(INFINITY, raw_scores=True)
    with pytest.raises(Refused) as caught:
        ask.answer(scored([float("inf"), 1.0, 2.0]))

    assert refused(INFINITY, caught.value.reason)[0] == 503


def test_errors_are_a_list_or_an_object() -> None:
    """What is invalid has FastAPI's list of details, all else OpenAI's error object."""
    detail = {"loc": ["body", "query"], "msg": "The query is blank.", "type": "blank_query"}

    assert (422, {"detail": [detail]}) == refusal(INFINITY, query=" ")
    status, body = refused(INFINITY, Reason.OVERLOADED)
    assert (429, {"message", "type", "param", "code"}) == (status, set(body["error"]))
    assert (429, "overloaded") == (body["error"]["code"], body["error"]["type"])
