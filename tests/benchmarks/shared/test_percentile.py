"""The percentile is a value that was measured."""

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.shared.percentile import percentile


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    """At least the share of all values is at or below it, and it is one of them."""
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_percentile_of_nothing() -> None:
    """Without values there is no percentile."""
    assert percentile([], 0.5) is None
