"""Reads product texts by the table of words.c, at a fifth of the time that dictionaries take.

Knows the library and when it may be asked; does not know how a word is tokenized, which `PairEncoder` does.
Invariant: rows are those of `PairEncoder`, whatever the texts; what the table does not know, it reads.
"""

import ctypes
import os
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Final

import numpy as np

from bundle import PairEncoder, Product
from bundle.manifest import TextContract
from bundle.packed import FieldIds
from bundle.text import Packed
from bundle.words import TOKEN_BYTES, TokensOf
from service.native.build import library_path

MOST_WORDS: Final = 65_536  # 8 MB; all are forgotten when it is full
_AT_ONCE: Final = 64  # products; the interpreter is held meanwhile
_MOST_UNKNOWN: Final = 4_096  # words of one call
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
        self._field_limits = np.array([limit for _, *limit in self._limits], np.int32)

    def _bodies(
        self, products: Sequence[Product | Packed], tokens: TokensOf, room: int
    ) -> Iterable[FieldIds]:
        if self._table is None or room < 1:
            return super()._bodies(products, tokens, room)
        bodies: list[FieldIds] = []
        for start in range(0, len(products), _AT_ONCE):
            bodies += self._of_some(self._table, products[start : start + _AT_ONCE], tokens, room)
        return bodies

    def _of_some(
        self, table: "_Table", products: Sequence[Product | Packed], tokens: TokensOf, room: int
    ) -> Iterable[FieldIds]:
        """Return the ids of at most so many products; of plain ones the table is asked."""
        plain = [product for product in products if isinstance(product, Product)]
        texts = table.encoded([*chain.from_iterable(map(self._read_fields, plain))]) if plain else None
        if texts is None:
            return super()._bodies(products, tokens, room)
        known = iter(table.read(texts, len(plain), self._field_limits, room, tokens))
        found = [next(known) if isinstance(product, Product) else None for product in products]
        return [
            self._body(product, tokens) if body is None else body
            for product, body in zip(products, found, strict=True)
        ]


class _Table:
    """The words that were asked for lately, each with its ids."""

    def __init__(self) -> None:
        self._library = _library()
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
        self, texts: bytes, products: int, limits: np.ndarray, room: int, tokens: TokensOf
    ) -> list[FieldIds | None]:
        """Return at most `room` ids of each product, and whether it has more; None if it has words unknown so far.

        Those are looked up by `tokens` and known from here on, but for long ones.
        """
        ids = np.empty(products * room, np.int32)
        counts, states = np.empty(products, np.int32), np.empty(products, np.uint8)
        unknown = np.empty((_MOST_UNKNOWN, 2), np.int32)
        fields = len(limits)
        found = self._library.shelfrank_words_read(
            *(self._address, texts, products, fields, limits.ctypes.data, room),
            *(ids.ctypes.data, counts.ctypes.data, states.ctypes.data, unknown.ctypes.data, _MOST_UNKNOWN),
        )
        for start, size in unknown[:found].tolist():
            word = texts[start : start + size]
            packed = tokens(word.decode())
            self._library.shelfrank_words_keep(self._address, word, size, packed, len(packed) // TOKEN_BYTES)
        packed = ids.tobytes()
        told: list[FieldIds | None] = []
        start = 0
        for count, state in zip(counts.tolist(), states.tolist(), strict=True):
            end = start + TOKEN_BYTES * count
            told.append(None if state == _UNKNOWN else (packed[start:end], state != _READ))
            start = end
        return told
