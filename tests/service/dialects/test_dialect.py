"""Tests of service/dialects/dialect.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dialects.dialect import best_first, decimal, finite_logits, pair_up, scores_in_order
from service.domain.ranking import LEAST
from service.errors import Reason, Refused, error_message
from tests.service.dialects.support import LIMITS, scored

NAMES = ("first", "second")


def _pairs(queries: list[str], texts: list[str]) -> list[tuple[str, str]]:
    groups = pair_up(queries, texts, LIMITS, NAMES)
    return [(query, product.text) for query, products in groups for product in products]


@pytest.mark.parametrize(
    ("queries", "texts", "pairs"),
    [
        (["q"], ["a", "b"], [("q", "a"), ("q", "b")]),
        (["q", "r"], ["a"], [("q", "a"), ("r", "a")]),
        (["q", "r"], ["a", "b"], [("q", "a"), ("r", "b")]),
        (["q"], [], []),
        ([], [], []),
    ],
)
def test_queries_and_texts_are_paired(
    queries: list[str], texts: list[str], pairs: list[tuple[str, str]]
) -> None:
    """One goes with many, and as many of both go side by side."""
    assert pairs == _pairs(queries, texts)


@given(st.lists(st.tuples(st.sampled_from("qr"), st.sampled_from("ab")), min_size=1, max_size=5))
def test_pairs_keep_their_order(pairs: list[tuple[str, str]]) -> None:
    """Whatever queries repeat, the pairs of all groups are those of the request, in its order."""
    assert pairs == _pairs([query for query, _ in pairs], [text for _, text in pairs])


def test_adjacent_equal_queries_share_a_group() -> None:
    """A query that stands beside itself is tokenized once."""
    assert [2, 1, 1] == [
        len(products) for _, products in pair_up(["q", "q", "r", "q"], ["a"] * 4, LIMITS, NAMES)
    ]


@pytest.mark.parametrize(
    ("queries", "texts", "reason", "loc"),
    [
        (["q", "r"], ["a", "b", "c"], Reason.UNPAIRED_TEXTS, ()),
        (["q", "r"], [], Reason.UNPAIRED_TEXTS, ()),
        (["q"] * 6, ["a"], Reason.TOO_MANY_DOCUMENTS, ("first",)),
        (["q"], ["a"] * 6, Reason.TOO_MANY_DOCUMENTS, ("second",)),
        (["q", " "], ["a"], Reason.BLANK_QUERY, ("first", 1)),
        (["q" * 21], ["a"], Reason.TEXT_TOO_LONG, ("first", 0)),
    ],
)
def test_what_does_not_pair_is_refused(
    queries: list[str], texts: list[str], reason: Reason, loc: tuple[object, ...]
) -> None:
    """Lengths that do not fit and texts beyond the limits are refused, with their place."""
    with pytest.raises(Refused) as caught:
        pair_up(queries, texts, LIMITS, NAMES)

    assert (reason, loc) == (caught.value.reason, caught.value.loc)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_is_a_plain_decimal(value: float) -> None:
    """Any finite number is written with a dot, without an exponent, and reads back."""
    written = bytes(decimal(value))

    assert b"." in written
    assert b"e" not in written.lower()
    assert json.loads(written) == pytest.approx(value, abs=1e-6)


def test_scores_and_logits_have_an_order() -> None:
    """Best first or in the order of the request, calibrated or raw, cut or whole."""
    what = scored([-2.0, 3.0, 1.0])

    assert [1, 2, 0] == [index for index, _ in best_first(what, None)]
    assert [(1, b"3.000000"), (2, b"1.000000")] == [
        (index, bytes(score)) for index, score in best_first(what, 2, raw=True)
    ]
    assert [b"-2.000000", b"3.000000", b"1.000000"] == [
        bytes(score) for score in scores_in_order(what, raw=True)
    ]
    assert sorted(scores_in_order(what), key=bytes) != scores_in_order(what)


def test_what_was_not_scored_is_last_or_refused() -> None:
    """A score that is missing is below any that is computed; a logit that is missing cannot be told."""
    what = scored([float("nan"), 3.0], failed=[])

    (best, first), (rest, last) = best_first(what, None)
    assert (1, 0) == (best, rest)
    assert float(bytes(first)) >= LEAST > float(bytes(last)) > 0
    with pytest.raises(Refused) as caught:
        finite_logits(what)
    assert caught.value.reason is Reason.UNSCORED


def test_an_error_says_where() -> None:
    """The place of a fault is written as a path."""
    assert Reason.BLANK_QUERY.message == error_message(Reason.BLANK_QUERY, ())
    assert error_message(Reason.INVALID_FIELD, ("inputs", 3, "name")).endswith(" (at inputs[3].name)")
