"""PURE. The rules by which text-embeddings-inference batches for ONNX Runtime on a CPU, re-created.

Knows token counts and places in a queue; does not know texts, threads or HTTP. It is an emulation: text-embeddings-inference
itself is written in Rust and is in no package registry. Its rules, as of version 1.9:

- every document of a list is an entry of its own in one queue, first in, first out, never sorted by length;
- a batch takes entries from the front as long as entries x longest entry is within the token budget, since a batch is padded
  to its longest; it ends at the first entry that does not fit, though a later one might;
- the ONNX Runtime backend takes at most 8 entries, whatever is configured;
- an entry whose client has gone is thrown away when its turn comes.

Invariant: a batch is a run of the queue's front without those that were dropped, and an entry that is too long for the budget
by itself is in a batch of its own.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

MAX_BATCH_TOKENS: Final = 16_384
MAX_BATCH_ENTRIES: Final = 8

Entry = TypeVar("Entry")


def next_batch(
    queue: deque[Entry],
    tokens: Callable[[Entry], int],
    is_dropped: Callable[[Entry], bool],
    *,
    max_tokens: int = MAX_BATCH_TOKENS,
    max_entries: int = MAX_BATCH_ENTRIES,
) -> list[Entry]:
    """Take the next batch off the queue; empty if nothing is left that anybody waits for."""
    batch: list[Entry] = []
    longest = 0
    while queue and len(batch) < max_entries:
        entry = queue[0]
        if is_dropped(entry):
            queue.popleft()
            continue
        longest = max(longest, tokens(entry))
        if batch and longest * (len(batch) + 1) > max_tokens:
            break
        batch.append(queue.popleft())
    return batch
