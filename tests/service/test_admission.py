"""Tests of service/admission.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admission import Admission, predict_tokens


@given(st.lists(st.integers(0, 5_000), max_size=60), st.integers(1, 4_000))
def test_held_tokens_stay_within_the_bound(costs: list[int], bound: int) -> None:
    """Whatever arrives, the sum of what is held exceeds the bound only if it is one single request."""
    admission = Admission(bound)
    held = [cost for cost in costs if admission.admit(cost)]

    assert admission.held_tokens == sum(held)
    assert sum(held) <= bound or len([cost for cost in held if cost]) == 1


@given(st.lists(st.integers(0, 5_000), max_size=60), st.integers(1, 4_000))
def test_releasing_everything_leaves_nothing(costs: list[int], bound: int) -> None:
    """After every admitted request was released, the queue is empty and takes any request."""
    admission = Admission(bound)
    for cost in [cost for cost in costs if admission.admit(cost)]:
        admission.release(cost)

    assert admission.held_tokens == 0
    assert admission.admit(bound + 1)


def test_full_means_that_nothing_more_fits() -> None:
    """`full` is told exactly when a request of one token would be refused."""
    admission = Admission(10)
    admission.admit(9)

    assert not admission.full
    assert admission.admit(1)
    assert admission.full
    assert not admission.admit(1)


def test_a_refusal_takes_nothing() -> None:
    """A refused request leaves the count as it was."""
    admission = Admission(10)
    admission.admit(8)

    assert not admission.admit(3)
    assert admission.held_tokens == 8


def test_releasing_too_much_is_a_bug() -> None:
    """Giving back more than was taken is noticed."""
    with pytest.raises(AssertionError):
        Admission(10).release(1)


@given(st.integers(0, 2_000), st.lists(st.integers(0, 20_000), max_size=50))
def test_the_prediction_is_bounded_by_the_model(query: int, documents: list[int]) -> None:
    """No pair is predicted to be longer than the model reads, nor shorter than its special tokens."""
    tokens = predict_tokens(query, documents, max_length=96)

    assert 3 * len(documents) <= tokens <= 96 * len(documents)
