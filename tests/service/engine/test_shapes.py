"""Tests of service/engine/shapes.py: promises over all rows, lengths and limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.verify import INPUT_NAMES
from service.engine.shapes import FEWEST_ROWS, SHORTEST, Shape, ShapeSet, make_shapes, pad

limits = st.builds(make_shapes, st.integers(8, 1_024), st.integers(1_024, 65_536))


@given(limits, st.data())
def test_a_row_is_computed_at_a_length_that_holds_it(shapes: ShapeSet, data: st.DataObject) -> None:
    """The length is of the set, holds the row, and is never half again as long unless it is the shortest."""
    tokens = data.draw(st.integers(1, shapes.lengths[-1]))
    length = shapes.length_of(tokens)

    assert length in shapes.lengths
    assert tokens <= length
    assert length == shapes.lengths[0] or length < 1.5 * tokens


@given(limits, st.data())
def test_parts_hold_every_row_once(shapes: ShapeSet, data: st.DataObject) -> None:
    """Any number of rows is cut into slices that follow each other, as few as possible, each within a shape."""
    rows, length = data.draw(st.integers(1, 2_000)), data.draw(st.sampled_from(shapes.lengths))
    parts = list(shapes.parts(rows, length))
    places = [place for part in parts for place in range(part.start, part.stop)]
    found = [shapes.shape_of(part.stop - part.start, length) for part in parts]

    assert list(range(rows)) == places
    assert len(parts) == -(-rows // shapes.most_rows(length))
    assert set(found) <= set(shapes.all())


@given(limits, st.data())
def test_a_shape_is_not_much_larger_than_its_rows(shapes: ShapeSet, data: st.DataObject) -> None:
    """A run that fits computes less than half again as many rows as it has, and never fewer."""
    length = data.draw(st.sampled_from(shapes.lengths))
    rows = data.draw(st.integers(1, shapes.most_rows(length)))
    shape = shapes.shape_of(rows, length)

    assert rows <= shape.rows
    assert shape.rows == FEWEST_ROWS or shape.rows < 1.5 * rows


@given(limits)
def test_the_set_is_small_and_bounded(shapes: ShapeSet) -> None:
    """No run has more tokens than was set, but for the fewest rows, and there are not too many shapes to capture."""
    every = shapes.all()

    assert len(set(every)) == len(every) <= 200
    assert all(shape.tokens <= shapes.run_tokens or shape.rows == FEWEST_ROWS for shape in every)
    assert every == sorted(every, key=lambda shape: -shape.tokens)


def test_pairs_shorter_than_the_shortest_have_one_length() -> None:
    """A model whose longest pair is short is computed at that length alone."""
    assert make_shapes(SHORTEST // 2, 1_024).lengths == (SHORTEST // 2,)


@pytest.mark.parametrize("tokens", [0, 49])
def test_what_does_not_fit_is_refused(tokens: int) -> None:
    """No rows, rows that are too many and a row that is too long have no shape."""
    shapes = make_shapes(48, 1_024)

    with pytest.raises(ValueError, match="expected"):
        shapes.shape_of(tokens, 32)
    with pytest.raises(ValueError, match="at most 48 tokens"):
        shapes.length_of(49)


def test_padding_adds_rows_that_see_one_token() -> None:
    """What was there stays; to its right is nothing to see, and below it one padding token a row."""
    feeds = {name: np.arange(1, 7, dtype=np.int64).reshape(2, 3) for name in INPUT_NAMES}
    padded = pad(feeds, Shape(length=4, rows=3), pad_id=9)

    assert padded["input_ids"].tolist() == [[1, 2, 3, 9], [4, 5, 6, 9], [9, 9, 9, 9]]
    assert padded["attention_mask"].tolist() == [[1, 2, 3, 0], [4, 5, 6, 0], [1, 0, 0, 0]]
    assert padded["token_type_ids"].tolist() == [[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0]]
