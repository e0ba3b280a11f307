"""Tests of service/dialects/vllm.py."""

import pytest

from service.dialects.vllm import RERANK, SCORE, SPELLINGS
from service.errors import Reason
from tests.service.dialects.support import asked, refusal, refused, told

NONE = {"query": None, "documents": None}


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
def test_every_spelling_is_understood(first: str, second: str) -> None:
    """One query and many texts give the scores in the order of the texts."""
    ask = asked(
        SCORE, **{**NONE, first: "red", second: ["a", "b", "c"]}, model="m", truncate_prompt_tokens=-1
    )
    answer = told(ask)

    assert ["id", "object", "created", "model", "data", "usage"] == list(answer)
    assert ("score-r1", "list") == (answer["id"], answer["object"])
    assert [(0, "score"), (1, "score"), (2, "score")] == [(d["index"], d["object"]) for d in answer["data"]]
    assert [0, 2, 1] == sorted(range(3), key=lambda place: answer["data"][place]["score"])
    assert {"prompt_tokens": 22, "total_tokens": 22, "completion_tokens": 0} == answer["usage"]


def test_lists_are_paired() -> None:
    """As many queries as texts are scored side by side."""
    ask = asked(SCORE, query=None, queries=["red", "blue"], documents=["a", "b"])

    assert [("red", ["a"]), ("blue", ["b"])] == [
        (query, [product.text for product in products]) for query, products in ask.groups
    ]


@pytest.mark.parametrize("switch", ["use_activation", "activation"])
def test_without_activation_scores_are_logits(switch: str) -> None:
    """The model's own numbers come back on request."""
    ask = asked(SCORE, **NONE, text_1="red", text_2=["a", "b", "c"], **{switch: False})

    assert [-2.0, 3.0, 1.0] == [d["score"] for d in told(ask)["data"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"text_1": "q"},
        {"text_1": "q", "documents": ["a"]},
        {"text_1": ["q", "r"], "text_2": ["a", "b", "c"]},
        {"text_1": "q", "text_2": [{"type": "image_url"}]},
        {"text_1": " ", "text_2": "a"},
    ],
)
def test_what_cannot_be_scored_is_a_bad_request(fields: dict[str, object]) -> None:
    """VLLM's clients expect 400 and an error object."""
    status, body = refusal(SCORE, **{**NONE, **fields})

    assert (400, "BadRequestError", 400) == (status, body["error"]["type"], body["error"]["code"])


def test_the_place_of_a_fault_has_its_digits() -> None:
    """text_1 is a name of ours, digits and all."""
    message = refusal(SCORE, **NONE, text_1=1, text_2="a")[1]["error"]["message"]

    assert message.endswith(" (at text_1)")


def test_other_errors_keep_their_status() -> None:
    """Overload is 429, an unknown path 404."""
    assert (429, "Too Many Requests") == _kind(Reason.OVERLOADED)
    assert (404, "NotFoundError") == _kind(Reason.NOT_FOUND)
    assert (503, "Service Unavailable") == _kind(Reason.NOT_READY)


def _kind(reason: Reason) -> tuple[int, str]:
    status, body = refused(SCORE, reason)
    return status, body["error"]["type"]


def test_rerank_returns_documents_as_objects() -> None:
    """Each result of vLLM's rerank has its document's text."""
    answer = told(asked(RERANK))

    assert {"id", "model", "usage", "results"} <= set(answer)
    assert all(set(result["document"]) == {"text"} for result in answer["results"])
    assert refusal(RERANK, query=" ")[0] == 400
