"""The least work of a list, counted another way."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.bound import Operations, Shape, count

SHAPES = st.builds(Shape, st.integers(1, 12), st.integers(1, 8).map(lambda n: 32 * n), st.integers(1, 2048))
LENGTHS = st.lists(st.integers(1, 72), min_size=1, max_size=5)


@given(SHAPES, LENGTHS)
def test_every_product_is_counted(shape: Shape, lengths: list[int]) -> None:
    """The count is that of the products of a full graph, added up one by one."""
    hidden, inner = shape.hidden, shape.intermediate
    linear = attention = 0
    for _, length in itertools.product(range(shape.layers), lengths):
        for rows, columns in [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]:
            linear += 2 * length * rows * columns
        attention += 2 * length * hidden * length  # scores
        attention += 2 * length * length * hidden  # values

    assert Operations(linear, attention) == count(shape, lengths, cls_only=False)


@given(SHAPES, LENGTHS)
def test_cls_only_is_less_and_the_same_for_single_tokens(shape: Shape, lengths: list[int]) -> None:
    """Only the last layer is lighter, by what its other tokens need; pairs of one token have no other tokens."""
    full, lean = (count(shape, lengths, cls_only=lean) for lean in (False, True))
    ones = [1] * len(lengths)

    assert lean.linear <= full.linear
    assert lean.attention <= full.attention
    assert count(shape, ones, cls_only=False) == count(shape, ones, cls_only=True)


def test_time_at_peak() -> None:
    """Linears go at the rate of their kind, attention at that of fp32."""
    assert 3.0 == Operations(8.0, 3.0).seconds({"int8": 4.0, "fp32": 3.0}, "int8")
