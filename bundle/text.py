"""Turns a query and products into the token ids that the model sees; the only place that does so.

Knows the text contract and the tokenizer; does not know a graph, a score or who asks.
Invariant: a row depends on its query and product alone, and any two strings give a row within max_length.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from bundle.errors import TextContractMismatch, TokenizerInvalid, VocabularyMismatch
from bundle.manifest import TextContract
from bundle.packed import FieldIds, PayloadLayout, text_key
from bundle.rows import Row, Rows
from bundle.words import TOKEN_BYTES, TextTokens, TokensOf, find_unknown_id, pack_ids, unpack_ids

TEXT_VERSION: Final = 1
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
        self._tokens = TextTokens(tokenizer, are_joined=contract.separator is not None)
        self._contract = contract
        self._limits = [
            (Product._fields.index(field.name), field.max_chars, field.max_tokens)
            for field in contract.fields
        ]
        self._separator = contract.separator
        self._layout = PayloadLayout(contract)
        self._unknown_id = find_unknown_id(tokenizer, tokenizer_json)
        self.text_key: Final = text_key(tokenizer_json, contract)

    def pack(self, products: Sequence[Product]) -> list[bytes]:
        """Return what `encode` needs of each product, tokenized; valid under this `text_key` alone."""
        texts = chain(self._texts("", products), chain.from_iterable(map(self._following, products)))
        tokens = self._tokens.of(texts)
        return [self._layout.pack(self._packable(product, tokens)) for product in products]

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
            for read, (place, max_chars, limit) in zip(self._spoken(product), self._limits, strict=True):
                if read:
                    ids, over_chars = tokens(read), max(0, len(product[place]) - max_chars)
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
                yield from filter(None, self._spoken(own))
                if own is not product:
                    yield from filter(None, self._following(own))

    def _clipped(self, product: Product) -> list[str]:
        """Return the text of every field of the contract in order."""
        texts = [_clip(product[place], max_chars) for place, max_chars, _ in self._limits]
        return texts if self._separator is None else [text.strip() for text in texts]

    def _spoken(self, product: Product) -> list[str]:
        """Return every field as it is tokenized: those after the first that is not blank begin with the separator."""
        texts = self._clipped(product)
        if self._separator is None:
            return texts
        first = _first(texts)
        return [
            self._separator + text if text and place > first else text for place, text in enumerate(texts)
        ]

    def _following(self, product: Product) -> list[str]:
        """Return every field as one that is not the first; nothing where that makes no difference."""
        if self._separator is None:
            return []
        return [self._separator + text if text else "" for text in self._clipped(product)]

    def _fields(self, product: Product, tokens: TokensOf) -> list[FieldIds]:
        """Return the ids of every field of the contract in order."""
        if self._separator is not None:
            return self._fields_as(product, self._spoken(product), tokens)
        return [
            _read(product[place], max_chars, max_tokens, tokens)
            for place, max_chars, max_tokens in self._limits
        ]

    def _fields_as(self, product: Product, texts: Sequence[str], tokens: TokensOf) -> list[FieldIds]:
        """Return the same, given the texts that the fields are read as."""
        fields = []
        for text, (place, max_chars, max_tokens) in zip(texts, self._limits, strict=True):
            ids, was_cut = _read(text, len(text), max_tokens, tokens)
            fields.append((ids, was_cut or len(product[place]) > max_chars))
        return fields

    def _packable(self, product: Product, tokens: TokensOf) -> list[FieldIds]:
        """Return what a payload is made of; with a separator, how the product begins comes last."""
        spoken = self._fields(product, tokens)
        if self._separator is None:
            return spoken
        first = _first(self._clipped(product))
        ids, was_cut = spoken[first] if first < len(spoken) else _NOTHING
        return [
            *self._fields_as(product, self._following(product), tokens),
            (pack_ids([first]) + ids, was_cut),
        ]

    def _bodies(self, products: Sequence[Product | Packed], tokens: TokensOf) -> Iterator[FieldIds]:
        """Yield the ids of all fields of each product, and whether text of any was cut off."""
        for product in products:
            if isinstance(product, Product):
                yield _joined(self._fields(product, tokens))
            elif self._separator is not None:
                yield _joined(self._begun(product, tokens))
            elif product.overrides is None:
                yield self._layout.read(product.payload)
            else:
                yield _joined(self._overridden(product.payload, product.overrides, tokens))

    def _overridden(self, payload: bytes, overrides: Product, tokens: TokensOf) -> list[FieldIds]:
        """Return every field of a packed product, those given anew in place of its own."""
        mine = self._fields(overrides, tokens)
        kept = self._layout.read_fields(payload)
        return [
            mine[number] if overrides[place] else kept[number]
            for number, (place, _, _) in enumerate(self._limits)
        ]

    def _begun(self, product: Packed, tokens: TokensOf) -> list[FieldIds]:
        """Return the fields of a packed product that are not blank, the first of them as it begins a text."""
        *kept, (start, was_cut) = self._layout.read_fields(product.payload)
        overrides = product.overrides or Product()
        texts = self._clipped(overrides)
        follow = self._fields_as(overrides, self._following(overrides), tokens)
        own = unpack_ids(start[:TOKEN_BYTES])[0]
        first = min(own, _first(texts))
        if first == len(kept):
            return []
        begin = self._fields(overrides, tokens)[first]
        rest = (follow[place] if texts[place] else kept[place] for place in range(first + 1, len(kept)))
        return [begin if texts[first] else (start[TOKEN_BYTES:], was_cut), *rest]


def _clip(text: str, max_chars: int) -> str:
    """Return at most `max_chars` characters, lone surrogates replaced."""
    clipped = text[:max_chars]
    return clipped if clipped.isascii() else _SURROGATE.sub("\ufffd", clipped)


def _joined(fields: Sequence[FieldIds]) -> FieldIds:
    """Return the ids of all fields as those of one."""
    return b"".join([ids for ids, _ in fields]), True in [was_cut for _, was_cut in fields]


def _first(texts: Sequence[str]) -> int:
    """Return the place of the first text that is not empty, their number if there is none."""
    return next((place for place, text in enumerate(texts) if text), len(texts))


def _read(text: str, max_chars: int, max_tokens: int, tokens: TokensOf) -> FieldIds:
    """Return the ids of a text within its limits, and whether any of it was cut off."""
    if not text:
        return _NOTHING
    ids = tokens(_clip(text, max_chars))
    most = max_tokens * TOKEN_BYTES
    return ids[:most], len(text) > max_chars or len(ids) > most
