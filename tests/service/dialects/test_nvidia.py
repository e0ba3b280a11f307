"""Tests of service/dialects/nvidia.py."""

import pytest

from service.dialects.dialect import ScoringRequest
from service.dialects.nvidia import RANKING
from service.errors import Reason, Refused
from tests.service.dialects.support import TEXTS, asked, refused, scored, told

PASSAGES = [{"text": text} for text in TEXTS]


def _requested_product(**fields: object) -> ScoringRequest:
    given = {"documents": None, "query": {"text": "red shoes"}, "passages": PASSAGES, **fields}
    return asked(RANKING, **given)


def test_rankings_are_logits_best_first() -> None:
    """Every passage comes back by its index with its logit, and the tokens are counted."""
    answer = told(_requested_product(model="nvidia/any", truncate="END"))

    assert ["rankings", "usage"] == list(answer)
    assert [(1, 3.0), (2, 1.0), (0, -2.0)] == [(each["index"], each["logit"]) for each in answer["rankings"]]
    assert {"prompt_tokens": 22, "total_tokens": 22} == answer["usage"]


def test_passages_may_have_fields() -> None:
    """A passage may be a product by its fields."""
    (_, products), *rest = _requested_product(passages=[{"title": "Mug", "brand": "Acme"}]).groups

    assert (["Mug"], []) == ([product.title for product in products], rest)  # type: ignore[union-attr]


def test_a_missing_logit_is_refused() -> None:
    """A logit that does not exist is not made up."""
    with pytest.raises(Refused) as caught:
        _requested_product().answer(scored([float("nan"), 1.0, 2.0]))

    assert 503 == refused(RANKING, caught.value.reason)[0]


@pytest.mark.parametrize(
    ("fields", "reason", "loc"),
    [
        ({"query": "red"}, Reason.INVALID_FIELD, ("query",)),
        ({"query": {"text": " "}}, Reason.BLANK_QUERY, ("query",)),
        ({"passages": "red"}, Reason.INVALID_FIELD, ("passages",)),
        ({"passages": [{}]}, Reason.EMPTY_DOCUMENT, ("passages", 0)),
        ({"passages": PASSAGES * 2}, Reason.TOO_MANY_DOCUMENTS, ("passages",)),
    ],
)
def test_faults_are_placed(fields: dict[str, object], reason: Reason, loc: tuple[object, ...]) -> None:
    """What is wrong is refused with its place."""
    with pytest.raises(Refused) as caught:
        _requested_product(**fields)

    assert (reason, loc) == (caught.value.reason, caught.value.loc)


def test_errors_have_the_shape_of_the_nim() -> None:
    """The error is one object, whose detail says in words what is wrong."""
    status, body = refused(RANKING, Reason.BLANK_QUERY, ("query",))

    assert (422, "error", "invalid_request_error") == (status, body["object"], body["type"])
    assert "The query is blank. (at query)" == body["message"] == body["detail"]
    assert "internal_server_error" == refused(RANKING, Reason.UNSCORED)[1]["type"]
