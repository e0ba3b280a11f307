"""Makes rows by the table of words.c, at a tenth of the time that dictionaries take.

Knows the library and when it may be asked; does not know how a word is tokenized, which `PairEncoder` does.
Invariant: rows are those of `PairEncoder`, whatever the texts; what the table does not know, it reads.
"""

import ctypes
import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Final

from bundle import PairEncoder, Product
from bundle.manifest import TextContract
from bundle.rows import Rows
from bundle.text import Packed
from bundle.words import TOKEN_BYTES, TokensOf
from service.native.build import WORDS, find
from service.native.structs import check_structs

MAX_WORDS: Final = 65_536  # 8 MB; all are forgotten when it is full
AT_ONCE: Final = 256  # products; the interpreter is held meanwhile
_MAX_UNKNOWN: Final = 1_024  # words of one call
_LEARN_ATTEMPTS: Final = 2
_WORD_BYTES: Final = 64  # as in words.c
_CUT: Final = 1  # as in words.c; a row of a higher state was not read
_Int = ctypes.c_int32


class _Contract(ctypes.Structure):
    _fields_ = (
        *((name, _Int) for name in ("query_place", "query_chars", "query_tokens")),
        *((name, _Int) for name in ("fields", "longest", "number_bytes", "prefix", "middle", "suffix")),
        *((name, ctypes.POINTER(_Int)) for name in ("fixed", "limits")),
    )


class _Rows(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("ids", "lengths", "states", "words", "word_bytes")),
        *((name, _Int) for name in ("most", "unknown", "query_tokens", "tokens")),
    )


@cache
def _library() -> ctypes.PyDLL:
    """Load the library; its tables are written under the interpreter's lock, which makes them safe between threads.

    OSError if it is not built, or of other structs.
    """
    library = ctypes.PyDLL(str(find(WORDS)[0]))
    check_structs(library.shelfrank_words_sizes, (_Contract, _Rows))
    pointer, objects = ctypes.c_void_p, ctypes.py_object
    library.shelfrank_words_open.argtypes = (ctypes.c_uint32, ctypes.c_uint64)
    library.shelfrank_words_open.restype = pointer
    library.shelfrank_words_close.argtypes = (pointer,)
    library.shelfrank_words_close.restype = None
    library.shelfrank_words_keep.argtypes = (pointer, ctypes.c_char_p, _Int, ctypes.c_char_p, _Int)
    library.shelfrank_words_keep.restype = None
    library.shelfrank_words_rows.argtypes = (
        *(pointer, ctypes.POINTER(_Contract), objects, objects, _Int, _Int),
        ctypes.POINTER(_Rows),
    )
    library.shelfrank_words_rows.restype = _Int
    library.shelfrank_words_count.argtypes = (ctypes.c_char_p, ctypes.c_int64, _Int)
    library.shelfrank_words_count.restype = ctypes.c_int64
    return library


def why_not() -> str:
    """Say why this machine cannot use the library; empty if it can."""
    if reason := find(WORDS)[1]:
        return f"it is not built: {reason}"
    try:
        _library()
    except OSError as error:
        return f"it does not load: {error}"
    return ""


class NativePairEncoder(PairEncoder):
    """A `PairEncoder` for a process that has the native library; of a tokenizer that reads words alone it is faster."""

    def __init__(self, tokenizer_json: bytes, contract: TextContract) -> None:
        """Load the tokenizer as `PairEncoder` does, and open an empty table of words."""
        super().__init__(tokenizer_json, contract)
        self._table = _Table(self._to_contract()) if self._tokens.reads_words_alone else None

    def _to_contract(self) -> _Contract:
        """Return the text contract as words.c reads it."""
        contract, template = self._contract, self._contract.template
        parts = (template.prefix, template.middle, template.suffix)
        fixed = [token for part in parts for token in part]
        limits = [number for limit in self._limits for number in limit]
        return _Contract(
            *(0, contract.query_max_chars, contract.query_max_tokens),
            *(len(self._limits), contract.max_length, self._layout.number_bytes, *map(len, parts)),
            (_Int * max(1, len(fixed)))(*fixed),
            (_Int * len(limits))(*limits),
        )

    def encode(self, query: str, products: Sequence[Product | Packed]) -> Rows:
        """Return the rows of `PairEncoder.encode`, those that the table cannot read by it."""
        if self._table is None:
            return super().encode(query, products)
        items = _items(products)
        parts = []
        for start in range(0, len(items), AT_ONCE):
            read = self._read_and_learn(self._table, query, items, start)
            some = products[start : start + AT_ONCE]
            if read is None:
                parts.append(super().encode(query, some))
            elif read.is_whole:
                parts.append(read.rows)
            else:
                others = iter(super().encode(query, [some[position] for position in read.unread]))
                unread = set(read.unread)
                mixed = (
                    next(others) if position in unread else row for position, row in enumerate(read.rows)
                )
                parts.append(Rows.of(mixed))
        return parts[0] if len(parts) == 1 else Rows.joined(parts)

    def _read_and_learn(
        self, table: "_Table", query: str, items: list[Product | bytes | None], start: int
    ) -> "_TableRows | None":
        """Return rows of some items, once the table has learnt the query's words, then the products'."""
        for _ in range(_LEARN_ATTEMPTS):
            read = table.read(query, items, start)
            if (read is not None and read.is_whole) or not table.unknown:
                return read
            table.learn(self._tokens.of(()))
        return table.read(query, items, start)

    def count_unknown(self, rows: Rows) -> int | None:
        """Return the same as `PairEncoder.count_unknown`."""
        if self._unknown_id is None:
            return None
        size = len(rows.packed) // TOKEN_BYTES
        count: int = _library().shelfrank_words_count(rows.packed, size, self._unknown_id)
        return count


def _items(products: Sequence[Product | Packed]) -> list[Product | bytes | None]:
    """Return products as the table takes them: texts, payloads, or None for what it cannot read."""
    return [
        item if isinstance(item, Product) else item.payload if item.overrides is None else None
        for item in products
    ]


class _TableRows:
    """Rows of a table, and the places of those that it could not read."""

    __slots__ = ("is_whole", "rows", "unread")

    def __init__(self, rows: Rows, states: bytes) -> None:
        self.rows = rows
        self.is_whole = max(states, default=0) <= _CUT
        self.unread = (
            [] if self.is_whole else [position for position, state in enumerate(states) if state > _CUT]
        )


class _Table:
    """The words that were asked for lately, each with its ids, for one text contract."""

    def __init__(self, contract: _Contract) -> None:
        self._library = _library()
        self._contract = contract
        self._of_thread = threading.local()
        seed = int.from_bytes(os.urandom(8), "little")
        self._close = self._library.shelfrank_words_close
        self._address = self._library.shelfrank_words_open(MAX_WORDS, seed)
        if not self._address:
            raise MemoryError("no memory for the native engine's words")

    def __del__(self) -> None:
        if getattr(self, "_address", None):
            self._close(self._address)

    def read(self, query: str, items: list[Product | bytes | None], start: int) -> _TableRows | None:
        """Return rows of some items; None if the query is not known."""
        space, count = self._space(), min(AT_ONCE, len(items) - start)
        struct = space.struct
        struct.unknown = 0
        if self._library.shelfrank_words_rows(
            self._address, self._contract, query, items, start, count, struct
        ):
            return None
        states = ctypes.string_at(struct.states, count)
        rows = Rows(
            ctypes.string_at(struct.ids, TOKEN_BYTES * struct.tokens),
            space.lengths[:count],
            [struct.query_tokens] * count,
            states,
        )
        return _TableRows(rows, states)

    @property
    def unknown(self) -> int:
        """How many words were not known to the last `read` of this thread."""
        return int(self._space().struct.unknown)

    def learn(self, tokens: TokensOf) -> None:
        """Keep those words with the ids that `tokens` says."""
        space = self._space()
        for position in range(space.struct.unknown):
            start = _WORD_BYTES * position
            word = bytes(space.words[start : start + space.word_bytes[position]])
            packed = tokens(word.decode())
            self._library.shelfrank_words_keep(
                self._address, word, len(word), packed, len(packed) // TOKEN_BYTES
            )

    def _space(self) -> "_Space":
        """What this thread has its rows written on."""
        found: _Space | None = getattr(self._of_thread, "space", None)
        if found is None:
            found = self._of_thread.space = _Space(self._contract.longest)
        return found


class _Space:
    """Output buffers of words.c; made once for a thread, since making them takes as long as using them."""

    def __init__(self, longest: int) -> None:
        self.lengths = (_Int * AT_ONCE)()
        self.words = (ctypes.c_uint8 * (_WORD_BYTES * _MAX_UNKNOWN))()
        self.word_bytes = (_Int * _MAX_UNKNOWN)()
        self._ids = (_Int * (AT_ONCE * longest))()
        self._states = (ctypes.c_uint8 * AT_ONCE)()
        self.struct = _Rows(
            *(ctypes.addressof(self._ids), ctypes.addressof(self.lengths), ctypes.addressof(self._states)),
            *(ctypes.addressof(self.words), ctypes.addressof(self.word_bytes)),
            most=_MAX_UNKNOWN,
        )
