"""Tests of service/dialects/jina.py."""

import pytest

from service.dialects.jina import JINA
from service.errors import Reason
from tests.service.dialects.support import TEXTS, asked, refusal, refused, told


@pytest.mark.parametrize(("asked_for", "returned"), [(None, True), (True, True), (False, False)])
def test_documents_come_back_unless_declined(asked_for: bool | None, returned: bool) -> None:  # noqa: FBT001
    """Jina returns documents, as objects with a text, if nothing else is said."""
    results = told(asked(JINA, return_documents=asked_for, model="jina-reranker-v2", top_n=2))["results"]

    assert [1, 2] == [result["index"] for result in results]
    assert [{"text": TEXTS[1]} if returned else None] == [result.get("document") for result in results[:1]]


def test_the_answer_counts_tokens() -> None:
    """`usage` has Jina's names and the one that OpenAI's family reads beside them, and `model` tells which one ranked."""
    answer = told(asked(JINA, documents=["a", {"title": "b"}, {"text": "c", "image": "d"}]))

    assert {"total_tokens": 22, "prompt_tokens": 22, "completion_tokens": 0} == answer["usage"]
    assert ("tiny@1.0.0", "list") == (answer["model"], answer["object"])
    assert {"title": "b"} in [result["document"] for result in answer["results"]]


def test_errors_have_a_detail() -> None:
    """Jina's clients read `detail`."""
    assert (422, {"detail": "The query is blank. (at query)"}) == refusal(JINA, query=" ")
    assert (429, {"detail": Reason.OVERLOADED.message}) == refused(JINA, Reason.OVERLOADED)
