"""Turns a query and products into the token ids that the model sees; the only place that does so.

Knows the text contract and the tokenizer; does not know a graph, a score or who asks.
Invariant: a row depends on its query and product alone, and any two strings give a row within max_length.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bundle.errors import TextContractMismatch, TokenizerInvalid, VocabularyMismatch
from bundle.manifest import PairTemplate, TextContract
from bundle.packed import FieldIds, PayloadLayout, text_key
from bundle.words import TOKEN_BYTES, TextTokens, TokensOf, find_unknown_id, pack_ids, unpack_ids

TEXT_VERSION: Final = 1
LENGTH_STEP: Final = 8
_NOTHING: Final[FieldIds] = (b"", False)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Product(NamedTuple):
    """The texts of one product; a field that is not known is empty."""

    title: str = ""
    brand: str = ""
    color: str = ""
    category: str = ""
    bullets: str = ""
    description: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Packed:
    """A product as `PairEncoder.pack` made it; the fields of `overrides` that are not empty replace its own."""

    payload: bytes
    overrides: Product | None = None


@dataclass(slots=True)  # not frozen, which makes making one three times as slow
class Row:
    """Token ids of one pair, as `pack_ids` writes them; the first `query_tokens` of them have type 0.

    `truncated` says that a text of the pair lost characters or tokens.
    """

    packed: bytes
    query_tokens: int
    truncated: bool

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids as numbers."""
        return unpack_ids(self.packed)

    def __len__(self) -> int:
        return len(self.packed) // TOKEN_BYTES


@dataclass(slots=True)
class Rows(Sequence[Row]):
    """Rows one after the other, since hundreds of small objects take longer to make than to compute with.

    `packed` are the ids of all; `lengths`, `query_tokens` and `truncated`, a byte that is 1 or 0, go row by row.
    """

    packed: bytes
    lengths: list[int]
    query_tokens: list[int]
    truncated: bytes

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """Return rows that were made one by one."""
        told = [(row.packed, len(row), row.query_tokens, row.truncated) for row in rows]
        packed, lengths, query_tokens, truncated = zip(*told, strict=True) if told else ((), (), (), ())
        return cls(b"".join(packed), list(lengths), list(query_tokens), bytes(truncated))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of several as one."""
        return cls(
            b"".join([part.packed for part in parts]),
            [length for part in parts for length in part.lengths],
            [tokens for part in parts for tokens in part.query_tokens],
            b"".join([part.truncated for part in parts]),
        )

    def take(self, places: Sequence[int]) -> Self:
        """Return the rows at some places, in their order."""
        packed, starts = self.packed, self._starts()
        return type(self)(
            b"".join([packed[starts[place] : starts[place + 1]] for place in places]),
            [self.lengths[place] for place in places],
            [self.query_tokens[place] for place in places],
            bytes([self.truncated[place] for place in places]),
        )

    def _starts(self) -> list[int]:
        """Return where each row begins among the bytes, and the end."""
        return [TOKEN_BYTES * tokens for tokens in accumulate(self.lengths, initial=0)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Row]:
        spans = pairwise(self._starts())
        for (start, end), tokens, cut in zip(spans, self.query_tokens, self.truncated, strict=True):
            yield Row(self.packed[start:end], tokens, bool(cut))

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> Self: ...
    def __getitem__(self, key: int | slice) -> Row | Self:
        """Return one row, or some of them."""
        places = range(len(self))[key]
        return self.take(places) if isinstance(places, range) else next(iter(self.take([places])))


NO_ROWS: Final = Rows(b"", [], [], b"")


@dataclass(frozen=True, slots=True)
class TextUse:
    """How much of one text the model reads, and what keeps it from the rest.

    `tokens` are read, `unknown` of them stand for text that the vocabulary has no piece for (None if the
    tokenizer has no such token). `over_limit` tokens are past the text's own limit, `over_length` tokens
    found no room in the pair, and `over_chars` characters were clipped before they could become tokens.
    """

    name: str
    tokens: int
    unknown: int | None
    over_limit: int
    over_length: int
    over_chars: int

    @property
    def is_clipped(self) -> bool:
        """Whether not all of the text is read."""
        return bool(self.over_limit or self.over_length or self.over_chars)


@dataclass(frozen=True, slots=True)
class ProductUse:
    """How much of each given field is read, in the contract's order; `tokens` are those of the whole row."""

    fields: tuple[TextUse, ...]
    tokens: int


class PairEncoder:
    """Encodes pairs as a bundle's text contract says; safe to share between threads.

    Characters are clipped before tokenizing: a tokenizer works through the whole text and truncates
    afterwards, which for 1 MB costs more than a second although few tokens are kept.
    """

    def __init__(self, tokenizer_json: bytes, contract: TextContract) -> None:
        """Load the tokenizer; raise TextContractMismatch, TokenizerInvalid or VocabularyMismatch."""
        if contract.version != TEXT_VERSION:
            raise TextContractMismatch(
                f"the bundle's text contract has version {contract.version}, this code keeps {TEXT_VERSION}"
            )
        try:
            tokenizer = Tokenizer.from_buffer(tokenizer_json)
        except Exception as error:  # the library raises bare Exception and ValueError
            raise TokenizerInvalid("the tokenizer file does not load") from error
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if largest >= contract.vocabulary:
            raise VocabularyMismatch(
                f"the tokenizer has id {largest}, the model's vocabulary has {contract.vocabulary} rows"
            )
        tokenizer.no_truncation()  # the file may carry both, and they would act before the contract does
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # a "[SEP]" in a title is text, it must not forge a separator
        self._tokens = TextTokens(tokenizer)
        self._contract = contract
        self._limits = [
            (Product._fields.index(field.name), field.max_chars, field.max_tokens)
            for field in contract.fields
        ]
        self._layout = PayloadLayout(contract)
        self._unknown_id = find_unknown_id(tokenizer, tokenizer_json)
        self.text_key: Final = text_key(tokenizer_json, contract)

    def pack(self, products: Sequence[Product]) -> list[bytes]:
        """Return what `encode` needs of each product, tokenized; valid under this `text_key` alone."""
        tokens = self._tokens.of(self._texts("", products))
        return [self._layout.pack(self._fields(product, tokens)) for product in products]

    def packed_tokens(self, payload: bytes) -> int:
        """Return how many tokens a payload holds, without reading it; a row has room for that many at most."""
        return self._layout.count(payload)

    def encode(self, query: str, products: Sequence[Product | Packed]) -> Rows:
        """Return one row per product, in order; a packed product gives the row of the texts it was packed from.

        A product that does not fit loses tokens from its end, so the last fields go first; the query
        loses none beyond its own limit. Lone surrogates are read as U+FFFD. ValueError if a payload is none.
        """
        contract, template = self._contract, self._contract.template
        tokens = self._tokens.of(self._texts(query, products))
        query_ids, query_cut = _read(query, contract.query_max_chars, contract.query_max_tokens, tokens)
        head = pack_ids(template.prefix) + query_ids + pack_ids(template.middle)
        suffix = pack_ids(template.suffix)
        query_tokens = len(head) // TOKEN_BYTES
        room = contract.max_length * TOKEN_BYTES - len(head) - len(suffix)
        return Rows.of(
            Row(head + body[:room] + suffix, query_tokens, query_cut or cut or len(body) > room)
            for body, cut in self._bodies(products, tokens)
        )

    def encode_known(self, query: str, products: Sequence[Product | Packed]) -> Rows | None:  # noqa: ARG002
        """Return the same rows if that takes next to no time; who can tell overrides this."""
        return None

    def measure(self, query: str, products: Sequence[Product]) -> tuple[TextUse, list[ProductUse]]:
        """Return how much of the query, and of each field of each product, is in the rows of `encode`."""
        contract, template = self._contract, self._contract.template
        tokens = self._tokens.of(self._texts(query, products))
        over_chars = max(0, len(query) - contract.query_max_chars)
        query_ids = tokens(_clip(query, contract.query_max_chars))
        limit = contract.query_max_tokens
        query_use = self._use("query", query_ids, limit, room=limit, over_chars=over_chars)
        fixed = len(template.prefix) + len(template.middle) + len(template.suffix)
        uses = []
        for product in products:
            row_tokens = fixed + query_use.tokens
            fields = []
            for place, max_chars, limit in self._limits:
                text = product[place]
                if text:
                    ids, over_chars = tokens(_clip(text, max_chars)), max(0, len(text) - max_chars)
                    room = contract.max_length - row_tokens
                    name = Product._fields[place]
                    fields.append(self._use(name, ids, limit, room=room, over_chars=over_chars))
                    row_tokens += fields[-1].tokens
            uses.append(ProductUse(tuple(fields), row_tokens))
        return query_use, uses

    def count_unknown(self, rows: Rows) -> int | None:
        """Return how many tokens of the rows stand for text that the vocabulary lacks, None if it cannot say."""
        if self._unknown_id is None:
            return None
        ids = np.frombuffer(rows.packed, np.int32)
        return int(np.count_nonzero(ids == self._unknown_id))

    def _use(self, name: str, packed: bytes, limit: int, *, room: int, over_chars: int) -> TextUse:
        """Count what a text's limit leaves of its tokens, and what the room in the row leaves of those."""
        ids = unpack_ids(packed)
        allowed = min(len(ids), limit)
        read = ids[: min(allowed, room)]
        unknown = None if self._unknown_id is None else read.count(self._unknown_id)
        return TextUse(name, len(read), unknown, len(ids) - allowed, allowed - len(read), over_chars)

    def _texts(self, query: str, products: Sequence[Product | Packed]) -> Iterator[str]:
        """Yield all texts that have to be tokenized, clipped."""
        yield _clip(query, self._contract.query_max_chars)
        for product in products:
            own = product.overrides if isinstance(product, Packed) else product
            if own is not None:
                yield from (
                    _clip(own[place], max_chars) for place, max_chars, _ in self._limits if own[place]
                )

    def _fields(self, product: Product, tokens: TokensOf) -> list[FieldIds]:
        """Return every field of the contract in order."""
        return [
            _read(product[place], max_chars, max_tokens, tokens)
            for place, max_chars, max_tokens in self._limits
        ]

    def _bodies(self, products: Sequence[Product | Packed], tokens: TokensOf) -> Iterator[FieldIds]:
        """Yield the ids of all fields of each product, and whether text of any was cut off."""
        for product in products:
            if isinstance(product, Product):
                yield _joined(self._fields(product, tokens))
            elif product.overrides is None:
                yield self._layout.read(product.payload)
            else:
                yield _joined(self._overridden(product.payload, product.overrides, tokens))

    def _overridden(self, payload: bytes, overrides: Product, tokens: TokensOf) -> list[FieldIds]:
        """Return every field of a packed product, those given anew in place of its own."""
        return [
            mine if overrides[place] else kept
            for (place, _, _), mine, kept in zip(
                self._limits,
                self._fields(overrides, tokens),
                self._layout.read_fields(payload),
                strict=True,
            )
        ]


def padded_length(tokens: int, max_length: int) -> int:
    """Return the length at which a row of so many tokens is computed: the next multiple of 8.

    It depends on the row alone, so a pair is always computed at one shape, whatever it is batched with.

    >>> [padded_length(n, 30) for n in (1, 8, 9, 29)]
    [8, 8, 16, 30]
    """
    return min(max_length, -(-tokens // LENGTH_STEP) * LENGTH_STEP)


def assemble(
    rows: Sequence[Row], template: PairTemplate, length: int | None = None
) -> dict[str, NDArray[np.int64]]:
    """Return input_ids, attention_mask and token_type_ids, each int64 [rows, length].

    Rows are padded on the right to `length`, by default the longest row.
    ValueError if a row is longer, or if there are no rows.
    """
    if not rows:
        raise ValueError("no rows to assemble")
    lengths = np.array([len(row) for row in rows])
    width = int(lengths.max()) if length is None else length
    if lengths.max() > width:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit a length of {width}")
    columns = np.arange(width)
    filled = columns < lengths[:, None]
    input_ids = np.full(filled.shape, template.pad_id, dtype=np.int64)
    input_ids[filled] = np.frombuffer(b"".join([row.packed for row in rows]), np.int32)
    types = np.zeros(filled.shape, dtype=np.int64)
    if template.type_ids:
        types[filled & (columns >= np.array([row.query_tokens for row in rows])[:, None])] = 1
    return {"input_ids": input_ids, "attention_mask": filled.astype(np.int64), "token_type_ids": types}


def _clip(text: str, max_chars: int) -> str:
    """Return at most `max_chars` characters, lone surrogates replaced."""
    clipped = text[:max_chars]
    return clipped if clipped.isascii() else _SURROGATE.sub("\ufffd", clipped)


def _joined(fields: Sequence[FieldIds]) -> FieldIds:
    """Return the ids of all fields as those of one."""
    return b"".join([ids for ids, _ in fields]), True in [was_cut for _, was_cut in fields]


def _read(text: str, max_chars: int, max_tokens: int, tokens: TokensOf) -> FieldIds:
    """Return the ids of a text within its limits, and whether any of it was cut off."""
    if not text:
        return _NOTHING
    ids = tokens(_clip(text, max_chars))
    most = max_tokens * TOKEN_BYTES
    return ids[:most], len(text) > max_chars or len(ids) > most
