"""Tests of benchmarks/peers/runners/tei_rules.py: the emulation batches as text-embeddings-inference says it does."""

import sys
from collections import deque

from benchmarks.peers.process import RUNNERS

sys.path.append(str(RUNNERS))

from tei_rules import MAX_BATCH_ENTRIES, next_batch


def _batches(tokens: list[int], *, max_tokens: int, gone: set[int] = frozenset()) -> list[list[int]]:  # type: ignore[assignment]
    queue = deque(enumerate(tokens))
    batches = []
    while batch := next_batch(queue, lambda e: e[1], lambda e: e[0] in gone, max_tokens=max_tokens):
        batches.append([place for place, _ in batch])
    return batches


def test_at_most_eight_entries_in_their_order() -> None:
    """Whatever the budget of tokens is, and however lengths lie."""
    assert [list(range(8)), list(range(8, 16)), [16]] == _batches([9, 1] * 8 + [3], max_tokens=16_384)
    assert 8 == MAX_BATCH_ENTRIES


def test_the_padded_batch_keeps_within_the_budget() -> None:
    """Entries times the longest counts, and the first entry that does not fit ends the batch, though a later one might."""
    assert [[0, 1, 2], [3, 4]] == _batches([10, 10, 10, 20, 1], max_tokens=40)
    assert [[0, 1], [2], [3]] == _batches([20, 20, 21, 20], max_tokens=40)


def test_an_entry_beyond_the_budget_goes_alone() -> None:
    """It is not left in the queue for ever."""
    assert [[0], [1]] == _batches([50, 1], max_tokens=40)


def test_what_nobody_waits_for_is_dropped_in_its_turn() -> None:
    """It takes no place in a batch; a queue of nothing else gives no batch."""
    assert [[0, 2]] == _batches([5, 5, 5], max_tokens=40, gone={1})
    assert [] == _batches([5, 5], max_tokens=40, gone={0, 1})
