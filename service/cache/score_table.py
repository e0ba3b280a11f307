"""PURE. A table of logits by key with a fixed size, a time to live, and the least recently used leaving first.

Knows keys, logits and the time it is given; does not know a clock or requests.
Invariant: all its memory is taken at the start; a logit is found only under its own key, before its time is over.
Logits are numbers of 64 bits, which hold more than the logit: see `known.py`.

Memory is four numpy arrays and nothing that grows. A key belongs to one set of eight places, as in a processor's cache,
and the eight compete for it alone. The figures are in docs/decisions/0018-score-cache.md.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.cache.pair_keys import KEY_BYTES

WAYS: Final = 8
PLACE_BYTES: Final = KEY_BYTES + 8 + 8 + 8
"""Bytes of one pair: its key, when it ends, when it was last used, and its logit."""

Keys = NDArray[np.uint64]
Logits = NDArray[np.float64]


class ScoreTable:
    """Logits of pairs, in at most `max_bytes`; below one set's size it holds nothing.

    Times are in seconds of any clock that does not go below 0.
    """

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._sets = max_bytes // (WAYS * PLACE_BYTES)
        shape = (self._sets, WAYS)
        self._keys = np.zeros((*shape, 2), np.uint64)  # the system gives memory for a page when it is written
        self._ends_s = np.zeros(shape, np.float64)
        self._used = np.zeros(shape, np.int64)
        self._logits = np.zeros(shape, np.float64)
        self._ttl_s = ttl_s
        self._uses = 0  # orders all uses of places
        self.entries = 0
        """Places that hold a logit, those included whose time is over and that were not taken again."""
        self.evictions = 0
        """Logits that left before their time was over."""

    @property
    def used_bytes(self) -> int:
        """Bytes of the places that hold a logit."""
        return self.entries * PLACE_BYTES

    def find(self, keys: Sequence[bytes], now_s: float) -> Logits:
        """Return the logits of keys, float64 [n], NaN where there is none; what is found counts as used."""
        found = np.full(len(keys), np.nan, np.float64)
        if self._sets and keys:
            asked, sets = self._locate(keys)
            is_here = _matches(self._keys[sets], asked) & (self._ends_s[sets] > now_s)
            rows, ways = np.nonzero(is_here)  # a key is in one place at most
            places = sets[rows], ways
            found[rows] = self._logits[places]
            self._used[places] = self._uses + 1 + rows
            self._uses += len(keys)
        return found

    def store(self, keys: Sequence[bytes], logits: Logits, now_s: float) -> None:
        """Keep logits, float64 [n], under their keys from now on; those that are not finite are not kept."""
        if not (self._sets and keys):
            return
        wanted, sets = self._locate(keys)
        waiting = np.flatnonzero(np.isfinite(logits))
        while waiting.size:  # one row of each set at a time, in order: a row has to see what came before it
            _, first = np.unique(sets[waiting], return_index=True)
            rows = waiting[first]
            places = self._choose(wanted[rows], sets[rows], now_s)
            self._keys[places] = wanted[rows]
            self._ends_s[places] = now_s + self._ttl_s
            self._used[places] = self._uses + 1 + rows
            self._logits[places] = logits[rows]
            waiting = np.delete(waiting, first)
        self._uses += len(keys)

    def _locate(self, keys: Sequence[bytes]) -> tuple[Keys, NDArray[np.intp]]:
        """Return keys as numbers, [n, 2], and the set each belongs to, [n]."""
        numbers = np.frombuffer(b"".join(keys), dtype="<u8").reshape(len(keys), 2)
        return numbers, (numbers[:, 0] % np.uint64(self._sets)).astype(np.intp)

    def _choose(
        self, keys: Keys, sets: NDArray[np.intp], now_s: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return a place for each key, all in different sets: its own, else one that is free, else the oldest used."""
        ends_s = self._ends_s[sets]
        is_same = _matches(self._keys[sets], keys)
        is_live = ends_s > now_s
        oldest = np.where(is_live, self._used[sets], -1).argmin(axis=1)
        is_known = is_same.any(axis=1)
        ways = np.where(is_known, is_same.argmax(axis=1), oldest)
        rows = np.arange(len(keys))
        self.evictions += int(np.count_nonzero(is_live[rows, ways] & ~is_known))
        self.entries += int(np.count_nonzero(ends_s[rows, ways] == 0.0))
        return sets, ways


def _matches(places: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Say which places of each key's set, [n, ways, 2], hold that key: bool [n, ways]."""
    is_same: NDArray[np.bool_] = (places == keys[:, None, :]).all(axis=2)
    return is_same
