"""Tests of service/dialects/voyage.py."""

from service.dialects.voyage import VOYAGE
from service.errors import Reason
from tests.service.dialects.support import TEXTS, asked, refusal, refused, told


def test_voyage_answers_with_data() -> None:
    """`data` holds index and score, `usage` the tokens."""
    answer = told(asked(VOYAGE, model="rerank-2.5", top_k=2, truncation=True))

    assert ["object", "data", "model", "usage"] == list(answer)
    assert [(1, {"index", "relevance_score"}), (2, {"index", "relevance_score"})] == [
        (result["index"], set(result)) for result in answer["data"]
    ]
    assert ("list", {"total_tokens": 22}) == (answer["object"], answer["usage"])


def test_documents_come_back_as_texts() -> None:
    """A returned document is a string."""
    data = told(asked(VOYAGE, return_documents=True))["data"]

    assert [TEXTS[1], TEXTS[2], TEXTS[0]] == [result["document"] for result in data]


def test_errors_have_a_detail_and_voyages_status() -> None:
    """What is invalid is a 400; overload stays a 429."""
    assert (400, {"detail": "The query is blank. (at query)"}) == refusal(VOYAGE, query=" ")
    assert refusal(VOYAGE, documents=[{"text": "a"}])[0] == 400
    assert (429, {"detail": Reason.OVERLOADED.message}) == refused(VOYAGE, Reason.OVERLOADED)
    assert refused(VOYAGE, Reason.NOT_READY)[0] == 503
