"""Tests of service/dialects/tei.py."""

import pytest

from service.dialects.tei import PREDICT, RERANK
from service.errors import Reason, Refused
from tests.service.dialects.support import LOGITS, TEXTS, asked, refusal, refused, scored, told

NONE = {"query": None, "documents": None}
PAIRS = [["red shoes", text] for text in TEXTS]


def test_rerank_answers_a_bare_list() -> None:
    """The list has index and score, best first, and nothing around it."""
    answer = told(asked(RERANK, documents=None, texts=TEXTS, truncate=True, truncation_direction="right"))

    assert [(1, {"index", "score"}), (2, {"index", "score"}), (0, {"index", "score"})] == [
        (rank["index"], set(rank)) for rank in answer
    ]
    assert [rank["score"] for rank in answer] == sorted((rank["score"] for rank in answer), reverse=True)


@pytest.mark.parametrize("name", ["return_text", "return_documents"])
def test_texts_come_back_on_request(name: str) -> None:
    """A rank has its text if it was asked for, by TEI's or by Elasticsearch's name."""
    assert [TEXTS[1], TEXTS[2]] == [rank["text"] for rank in told(asked(RERANK, top_n=2, **{name: True}))]


def test_raw_scores_are_logits() -> None:
    """On request the scores are what the model computed."""
    assert [3.0, 1.0, -2.0] == [rank["score"] for rank in told(asked(RERANK, raw_scores=True))]


def test_predict_answers_every_class() -> None:
    """Each pair gets all classes with probabilities that sum to one, most probable first."""
    answer = told(asked(PREDICT, **NONE, inputs=PAIRS))

    assert len(answer) == 3
    for row in answer:
        assert {"irrelevant", "complement", "substitute", "exact"} == {one["label"] for one in row}
        assert sum(one["score"] for one in row) == pytest.approx(1.0, abs=4e-6)
        assert [one["score"] for one in row] == sorted((one["score"] for one in row), reverse=True)
    assert ["irrelevant", "exact", "exact"] == [row[0]["label"] for row in answer]


def test_one_pair_gets_one_row() -> None:
    """A pair that is not in a list is not answered in one."""
    (pair,) = PAIRS[:1]
    answer = told(asked(PREDICT, **NONE, inputs=pair), scored(LOGITS[:1]))

    assert told(asked(PREDICT, **NONE, inputs=[pair]), scored(LOGITS[:1])) == [answer]
    assert answer[0]["label"] == "irrelevant"


def test_no_pairs_get_no_rows() -> None:
    """An empty list is answered with an empty list."""
    assert told(asked(PREDICT, **NONE, inputs=[]), scored([])) == []


@pytest.mark.parametrize(
    "inputs", ["a", ["a"], [["a"]], [["a", "b", "c"]], ["a", ["b", "c"]], [["a", "b"], ["c"]]]
)
def test_a_text_alone_cannot_be_classified(inputs: object) -> None:
    """A class is relevance to a query, so two texts are needed."""
    status, body = refusal(PREDICT, **NONE, inputs=inputs)

    assert (422, "validation") == (status, body["error_type"])
    assert body["error"].startswith(Reason.UNPAIRED_TEXTS.message)


def test_classes_have_no_raw_scores() -> None:
    """The model has one logit, not one for each class, and the answer says so plainly."""
    status, body = refusal(PREDICT, **NONE, inputs=PAIRS, raw_scores=True)

    assert (422, f"{Reason.UNSUPPORTED_OPTION.message} (at raw_scores)") == (status, body["error"])


@pytest.mark.parametrize("ask", [{"raw_scores": True}, {}])
def test_a_missing_logit_is_the_backends_fault(ask: dict[str, object]) -> None:
    """Where the engine failed, TEI answers 424."""
    request = asked(RERANK, **ask) if ask else asked(PREDICT, **NONE, inputs=PAIRS)
    with pytest.raises(Refused) as caught:
        request.answer(scored([1.0, float("nan"), 2.0]))

    status, body = refused(RERANK, caught.value.reason)
    assert (424, "backend") == (status, body["error_type"])


def test_errors_have_a_type() -> None:
    """TEI's error types go with its statuses."""
    assert (422, "validation") == _kind(refusal(RERANK, documents=None))
    assert (429, "overloaded") == _kind(refused(RERANK, Reason.OVERLOADED))
    assert (503, "unhealthy") == _kind(refused(RERANK, Reason.NOT_READY))
    assert (413, "validation") == _kind(refused(RERANK, Reason.BODY_TOO_LARGE))


def _kind(answer: tuple[int, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["error_type"]
