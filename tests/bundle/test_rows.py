"""Tests of bundle/rows.py."""

import numpy as np
import pytest

from bundle.rows import Row, Rows, assemble, padded_length
from bundle.words import pack_ids
from tests.tiny import END, PAD, START, text_contract, tokenizer_json

CONTRACT = text_contract(tokenizer_json())


@pytest.mark.parametrize(("tokens", "expected"), [(1, 8), (8, 8), (9, 16), (40, 40), (41, 46), (46, 46)])
def test_padded_length(tokens: int, expected: int) -> None:
    """A row is computed at the next multiple of eight, at most at max_length."""
    assert padded_length(tokens, 46) == expected


ROWS = [
    Row(pack_ids((START, 9, END, 7, 8, END)), 3, truncated=False),
    Row(pack_ids((START, END, END)), 2, truncated=False),
]


def test_assemble() -> None:
    """Ids are padded on the right, masked, and typed 1 after the middle."""
    feeds = assemble(ROWS, CONTRACT.template, 8)

    assert feeds["input_ids"].tolist() == [
        [START, 9, END, 7, 8, END, PAD, PAD],
        [START, END, END, *[PAD] * 5],
    ]
    assert feeds["attention_mask"].tolist() == [[1] * 6 + [0] * 2, [1] * 3 + [0] * 5]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}


def test_assemble_without_type_ids() -> None:
    """A model that knows no segments gets zeros."""
    feeds = assemble(ROWS, CONTRACT.template.model_copy(update={"type_ids": False}))

    assert not feeds["token_type_ids"].any()
    assert feeds["input_ids"].shape == (2, 6)


def test_assemble_refuses_what_does_not_fit() -> None:
    """A row is never cut silently, and no rows have no shape."""
    with pytest.raises(ValueError, match="does not fit"):
        assemble(ROWS, CONTRACT.template, 5)
    with pytest.raises(ValueError, match="no rows"):
        assemble([], CONTRACT.template)


def test_rows_are_one_block_and_many() -> None:
    """Rows are read, sliced, chosen and joined as the single rows that they were made of."""
    made = [Row(pack_ids(range(count)), query_tokens=1, truncated=count % 2 == 0) for count in (2, 3, 4, 5)]
    rows = Rows.of(made)

    assert made == list(rows)
    assert (made[1], made[-1], made[1:3]) == (rows[1], rows[-1], list(rows[1:3]))
    assert [made[2], made[0]] == list(rows.take([2, 0]))
    assert rows == Rows.joined([rows[:1], rows[1:], Rows.of([])])
    with pytest.raises(IndexError):
        _ = rows[4]
