"""A table of logits that score_table.c looks up and writes, where numpy's calls cost more than what they do.

Knows the library and the table's arrays; does not know keys' texts or requests.
Invariant: it holds and gives what a `ScoreTable` would.
"""

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np

from service.cache.score_table import Logits, ScoreTable
from service.native.build import library_path
from service.native.session import address_of

_Number = ctypes.c_int64


class _Table(ctypes.Structure):
    _fields_ = (
        ("sets", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("keys", "ends_s", "used", "logits")),
        *((name, _Number) for name in ("uses", "entries", "evictions")),
    )


@cache
def _library() -> ctypes.PyDLL:
    """Load the library; a call takes less time than giving the interpreter back and asking for it again."""
    library = ctypes.PyDLL(str(library_path()))
    table, keys, seconds = ctypes.POINTER(_Table), ctypes.c_char_p, ctypes.c_double
    library.shelfrank_table_find.argtypes = (table, _Number, keys, seconds, ctypes.c_void_p)
    library.shelfrank_table_find.restype = None
    library.shelfrank_table_store.argtypes = (table, _Number, keys, ctypes.c_void_p, seconds, seconds)
    library.shelfrank_table_store.restype = None
    return library


class NativeScoreTable(ScoreTable):
    """A `ScoreTable` for a process that can use the native library."""

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        """Take the memory and load the library, which has to be built."""
        self._library = _library()
        super().__init__(max_bytes, ttl_s)
        keys, ends_s, used = address_of(self._keys), address_of(self._ends_s), address_of(self._used)
        self._table = _Table(self._sets, keys, ends_s, used, address_of(self._logits))

    def find(self, keys: Sequence[bytes], now_s: float) -> Logits:
        """Return the logits of keys, float64 [n], NaN where there is none; what is found counts as used."""
        if not (self._sets and keys):
            return super().find(keys, now_s)
        found = np.empty(len(keys), np.float64)
        self._library.shelfrank_table_find(self._table, len(keys), b"".join(keys), now_s, address_of(found))
        return found

    def store(self, keys: Sequence[bytes], logits: Logits, now_s: float) -> None:
        """Keep logits, float64 [n], under their keys from now on; those that are not finite are not kept."""
        if not (self._sets and keys):
            return
        end_s = now_s + self._ttl_s
        address = address_of(logits)
        self._library.shelfrank_table_store(self._table, len(keys), b"".join(keys), address, now_s, end_s)
        self.entries, self.evictions = self._table.entries, self._table.evictions
