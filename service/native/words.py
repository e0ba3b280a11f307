"""Reads product texts by the table of words.c, at a fifth of the time that dictionaries take.

Knows the library and when it may be asked; does not know how a word is tokenized, which `PairEncoder` does.
Invariant: rows are those of `PairEncoder`, whatever the texts; what the table does not know, it reads.
"""

import ctypes
import os
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Final

from bundle import PairEncoder, Product
from bundle.manifest import TextContract
from bundle.packed import FieldIds
from bundle.words import TOKEN_BYTES, TokensOf
from service.native.build import library_path

MOST_WORDS: Final = 65_536  # 8 MB; all are forgotten when it is full
_FEW: Final = 8  # products; asking the table costs more than so few take
_AT_ONCE: Final = 64  # products; the interpreter is held meanwhile
_MOST_UNKNOWN: Final = 1_024  # words of one call
_READ, _UNKNOWN = 0, 1  # states of words.c


@cache
def _library() -> ctypes.PyDLL:
    """Load the library; its tables are written under the interpreter's lock, which makes them safe between threads."""
    library = ctypes.PyDLL(str(library_path()))
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    library.shelfrank_words_open.argtypes = (ctypes.c_uint32, ctypes.c_uint64)
    library.shelfrank_words_open.restype = pointer
    library.shelfrank_words_close.argtypes = (pointer,)
    library.shelfrank_words_close.restype = None
    library.shelfrank_words_keep.argtypes = (pointer, ctypes.c_char_p, number, ctypes.c_char_p, number)
    library.shelfrank_words_keep.restype = None
    library.shelfrank_words_read.argtypes = (
        *(pointer, ctypes.c_char_p, number, number, pointer, number),
        *(pointer, pointer, pointer, pointer, number),
    )
    library.shelfrank_words_read.restype = number
    return library


class NativePairEncoder(PairEncoder):
    """A `PairEncoder` for a process that has the native library; of a tokenizer that reads words alone it is faster."""

    def __init__(self, tokenizer_json: bytes, contract: TextContract) -> None:
        """Load the tokenizer as `PairEncoder` does, and open an empty table of words."""
        super().__init__(tokenizer_json, contract)
        self._table = _Table() if self._tokens.reads_words_alone else None
        places = [place for place, _, _ in self._limits]
        self._read_fields = itemgetter(*places) if len(places) > 1 else lambda product: (product[places[0]],)
        limits = [limit for _, *both in self._limits for limit in both]
        self._field_limits = (ctypes.c_int32 * len(limits))(*limits)

    def _given(self, products: Sequence[Product], tokens: TokensOf, room: int) -> Iterable[FieldIds]:
        if self._table is None or room < 1 or len(products) < _FEW:
            return super()._given(products, tokens, room)
        return chain.from_iterable(
            self._of_some(self._table, products[start : start + _AT_ONCE], tokens, room)
            for start in range(0, len(products), _AT_ONCE)
        )

    def _of_some(
        self, table: "_Table", products: Sequence[Product], tokens: TokensOf, room: int
    ) -> Iterable[FieldIds]:
        """Return the ids of at most so many products, those in one way that the table cannot read in the other."""
        texts = table.encoded([*chain.from_iterable(map(self._read_fields, products))])
        if texts is None:
            return super()._given(products, tokens, room)
        bodies = table.read(texts, len(products), self._field_limits, room, tokens)
        unread = [product for product, body in zip(products, bodies, strict=True) if body is None]
        others = iter(super()._given(unread, tokens, room))
        return [next(others) if body is None else body for body in bodies]


class _Table:
    """The words that were asked for lately, each with its ids."""

    def __init__(self) -> None:
        self._library = _library()
        self._of_thread = threading.local()
        seed = int.from_bytes(os.urandom(8), "little")
        self._close = self._library.shelfrank_words_close
        self._address = self._library.shelfrank_words_open(MOST_WORDS, seed)
        if not self._address:
            raise MemoryError("no memory for the native engine's words")

    def __del__(self) -> None:
        if getattr(self, "_address", None):
            self._close(self._address)

    def encoded(self, texts: Sequence[str]) -> bytes | None:
        """Return texts as the table reads them, None if it cannot: a zero in one, or half of a surrogate pair."""
        joined = "\0".join([*texts, ""])
        if joined.count("\0") != len(texts):
            return None
        try:
            return joined.encode()
        except UnicodeEncodeError:
            return None

    def read(
        self, texts: bytes, products: int, limits: ctypes.Array[ctypes.c_int32], room: int, tokens: TokensOf
    ) -> list[FieldIds | None]:
        """Return at most `room` ids of each product, and whether it has more; None if it has words unknown so far.

        Those are looked up by `tokens` and known from here on, but for long ones.
        """
        result = self._result(room)
        found = self._library.shelfrank_words_read(
            *(self._address, texts, products, len(limits) // 2, limits, room),
            *(result.ids, result.counts, result.states, result.unknown, _MOST_UNKNOWN),
        )
        for start, size in zip(*[iter(result.unknown[: 2 * found])] * 2, strict=True):
            word = texts[start : start + size]
            packed = tokens(word.decode())
            self._library.shelfrank_words_keep(self._address, word, size, packed, len(packed) // TOKEN_BYTES)
        counts = result.counts[:products]
        ids = memoryview(result.ids).cast("B")[: TOKEN_BYTES * sum(counts)].tobytes()
        told: list[FieldIds | None] = []
        start = 0
        for count, state in zip(counts, result.states[:products], strict=True):
            end = start + TOKEN_BYTES * count
            told.append(None if state == _UNKNOWN else (ids[start:end], state != _READ))
            start = end
        return told

    def _result(self, room: int) -> "_Result":
        """What this thread has its results written on."""
        found: _Result | None = getattr(self._of_thread, "result", None)
        if found is None or len(found.ids) < _AT_ONCE * room:
            found = self._of_thread.result = _Result(room)
        return found


class _Result:
    """Memory for what words.c tells; made once for a thread, since making it takes as long as using it."""

    def __init__(self, room: int) -> None:
        self.ids = (ctypes.c_int32 * (_AT_ONCE * room))()
        self.counts = (ctypes.c_int32 * _AT_ONCE)()
        self.states = (ctypes.c_uint8 * _AT_ONCE)()
        self.unknown = (ctypes.c_int32 * (2 * _MOST_UNKNOWN))()
