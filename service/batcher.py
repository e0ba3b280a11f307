"""PURE. Groups the rows of one request into buckets of equal length.

Knows lengths; does not know time, threads, tokens' values or other requests.
Invariant: every row is in exactly one bucket, and the length at which it is computed depends on it alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MAX_BUCKET_TOKENS = 16_384  # bounds the memory of one run
MIN_SPLIT_TOKENS = 256  # below this a second run costs more than it shares


@dataclass(frozen=True, slots=True)
class Bucket:
    """Rows that are computed together, all padded to one length."""

    rows: tuple[int, ...]
    length: int

    @property
    def tokens(self) -> int:
        """What the bucket costs, padding included."""
        return len(self.rows) * self.length


def plan_buckets(lengths: Sequence[int], workers: int) -> list[Bucket]:
    """Group rows by their padded lengths, biggest bucket first.

    A bucket larger than a fair share is cut into nearly equal parts, so that no worker is left with
    one long run while the others are idle: two parts per worker, of at least MIN_SPLIT_TOKENS.

    >>> [(bucket.rows, bucket.length) for bucket in plan_buckets([16, 8, 16], workers=2)]
    [((0, 2), 16), ((1,), 8)]
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        groups[length].append(row)
    share = max(MIN_SPLIT_TOKENS, -(-sum(lengths) // (2 * workers)))
    buckets = [
        Bucket(part, length)
        for length, rows in groups.items()
        for part in _split(rows, parts=_parts(len(rows), length, share))
    ]
    return sorted(buckets, key=lambda bucket: (-bucket.tokens, bucket.rows))


def _parts(rows: int, length: int, share: int) -> int:
    """Return in how many parts a group is cut: none larger than the share by more than a row, or than the bound."""
    return max(-(-rows * length // share), -(-rows // max(1, MAX_BUCKET_TOKENS // length)))


def _split(rows: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Cut `rows` into parts of nearly equal size."""
    edges = [len(rows) * part // parts for part in range(parts + 1)]
    return [tuple(rows[start:end]) for start, end in pairwise(edges)]
