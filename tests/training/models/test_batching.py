"""Batches of about one length: nothing is lost, and nothing waits for a longer text than it must."""

from hypothesis import given
from hypothesis import strategies as st

from training.models.batching import batches_by_length, batches_of_one_length

LENGTHS = st.lists(st.integers(1, 20), max_size=40)
ROWS = st.integers(1, 9)


@given(LENGTHS, ROWS)
def test_batches_hold_every_place_once(lengths: list[int], rows: int) -> None:
    """However texts are batched, each is in one batch, and no batch is over its size."""
    sorted_batches = list(batches_by_length(lengths, rows))
    equal_batches = [places for _, places in batches_of_one_length(lengths, rows)]

    for batches in (sorted_batches, equal_batches):
        assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
        assert all(0 < len(batch) <= rows for batch in batches)


@given(LENGTHS, ROWS)
def test_lengths_rise_or_fall_from_batch_to_batch(lengths: list[int], rows: int) -> None:
    """Sorted batches go from the shortest to the longest, or the other way round."""
    rising = [lengths[place] for batch in batches_by_length(lengths, rows) for place in batch]
    falling = [
        lengths[place] for batch in batches_by_length(lengths, rows, longest_first=True) for place in batch
    ]

    assert rising == sorted(lengths)
    assert falling == sorted(lengths, reverse=True)


@given(LENGTHS, ROWS)
def test_a_batch_of_one_length_has_just_that(lengths: list[int], rows: int) -> None:
    """The length that comes with a batch is that of each of its texts."""
    batches = batches_of_one_length(lengths, rows)

    assert all(lengths[place] == length for length, places in batches for place in places)
