"""Tests of service/scoring/admission.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.admission import Admission, documents_that_fit, predict_tokens

ONE = {"default": 1.0}
SHARED = {"default": 1.0, "web": 3.0}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(SHARED)), st.integers(0, 5_000)), max_size=60),
    st.integers(1, 4_000),
)
def test_a_tenant_stays_within_the_bound(requests: list[tuple[str, int]], bound: int) -> None:
    """Whatever arrives, what one tenant holds exceeds the bound only if it is one single request."""
    admission = Admission(bound, SHARED)
    held = [(tenant, tokens) for tenant, tokens in requests if admission.admit(tenant, tokens)]

    assert admission.held_tokens == sum(tokens for _, tokens in held)
    for tenant in SHARED:
        own = [tokens for name, tokens in held if name == tenant and tokens]
        assert sum(own) <= bound or len(own) == 1


@given(st.lists(st.integers(0, 5_000), max_size=60), st.integers(1, 4_000))
def test_releasing_everything_leaves_nothing(costs: list[int], bound: int) -> None:
    """After every admitted request was released, the queue is empty and takes any request."""
    admission = Admission(bound, ONE)
    for cost in [cost for cost in costs if admission.admit("default", cost)]:
        admission.release("default", cost)

    assert admission.held_tokens == 0
    assert admission.admit("default", bound + 1)


def test_full_means_that_nothing_more_fits() -> None:
    """It is told exactly when a request of one token would be refused."""
    admission = Admission(10, ONE)
    admission.admit("default", 9)

    assert not admission.is_full("default")
    assert admission.admit("default", 1)
    assert admission.is_full("default")
    assert not admission.admit("default", 1)


def test_a_tenant_cannot_keep_another_out() -> None:
    """One that has filled the queue alone leaves the other's share free, and then has to give way itself."""
    admission = Admission(100, SHARED)
    assert admission.admit("default", 100)

    assert admission.admit("web", 75)
    assert not admission.admit("web", 1)
    admission.release("default", 80)
    assert admission.admit("default", 5)
    assert not admission.admit("default", 1)


def test_a_refusal_takes_nothing() -> None:
    """A refused request leaves the count as it was."""
    admission = Admission(10, ONE)
    admission.admit("default", 8)

    assert not admission.admit("default", 3)
    assert admission.held_tokens == 8


def test_releasing_too_much_is_a_bug() -> None:
    """Giving back more than was taken is noticed."""
    with pytest.raises(AssertionError):
        Admission(10, ONE).release("default", 1)


@given(st.integers(0, 2_000), st.lists(st.integers(0, 20_000), max_size=50))
def test_the_prediction_is_bounded_by_the_model(query: int, documents: list[int]) -> None:
    """No pair is predicted to be longer than the model reads, nor shorter than its special tokens."""
    tokens = predict_tokens(query, documents, max_length=96)

    assert len(documents) == len(tokens)
    assert all(3 <= count <= 96 for count in tokens)


@given(st.lists(st.floats(0.001, 10), max_size=40), st.floats(0, 20), st.floats(-5, 100), st.floats(0.5, 4))
def test_as_many_documents_enter_as_fit(
    costs: list[float], wait: float, available: float, factor: float
) -> None:
    """The number is the largest whose predicted end is in time, as trying every number finds it."""

    def finish(cost: float) -> float:
        return wait + factor * cost

    tried = [count for count in range(1, len(costs) + 1) if finish(sum(costs[:count])) <= available]
    found = documents_that_fit(costs, finish, available)

    assert abs(found - max(tried, default=0)) <= (0 if not tried else 1)  # a rounding apart
    assert found == 0 or finish(sum(costs[:found])) <= available + 1e-9
