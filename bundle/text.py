"""Turns a query and products into the token ids that the model sees; the only place that does so.

Knows the text contract and the tokenizer; does not know a graph, a score or who asks.
Invariant: a row depends on its query and product alone, and any two strings give a row within max_length.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bundle.errors import TextContractMismatch, TokenizerInvalid, VocabularyMismatch
from bundle.manifest import PairTemplate, TextContract

TEXT_VERSION: Final = 1
LENGTH_STEP: Final = 8
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Product:
    """The texts of one product; a field that is not known is empty."""

    title: str = ""
    brand: str = ""
    color: str = ""
    category: str = ""
    bullets: str = ""
    description: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one pair; the first `query_tokens` of them have type 0.

    `truncated` says that a text of the pair lost characters or tokens.
    """

    ids: tuple[int, ...]
    query_tokens: int
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


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
        self._tokenizer = tokenizer
        self._contract = contract

    def encode(self, query: str, products: Sequence[Product]) -> list[Row]:
        """Return one row per product, in order.

        A product that does not fit loses tokens from its end, so the last fields go first; the query
        loses none beyond its own limit. Lone surrogates are read as U+FFFD.
        """
        contract, template = self._contract, self._contract.template
        clipped_query, query_cut = _clip(query, contract.query_max_chars)
        places: dict[str, int] = {clipped_query: 0}  # every distinct text is tokenized once
        pieces = [self._pieces(product, places) for product in products]
        encodings = self._tokenizer.encode_batch_fast(list(places), add_special_tokens=False)
        tokens = [encoding.ids for encoding in encodings]

        query_ids = tokens[0][: contract.query_max_tokens]
        query_cut = query_cut or len(tokens[0]) > len(query_ids)
        head = [*template.prefix, *query_ids, *template.middle]
        room = contract.max_length - len(head) - len(template.suffix)
        rows = []
        for product_pieces, product_cut in pieces:
            body: list[int] = []
            cut = query_cut or product_cut
            for place, limit in product_pieces:
                ids = tokens[place]
                cut = cut or len(ids) > limit
                body += ids[:limit]
            cut = cut or len(body) > room
            rows.append(Row((*head, *body[:room], *template.suffix), len(head), cut))
        return rows

    def _pieces(self, product: Product, places: dict[str, int]) -> tuple[list[tuple[int, int]], bool]:
        """Give each text of a product a place in the batch: [(place, token limit)], was clipped."""
        pieces: list[tuple[int, int]] = []
        cut = False
        for field in self._contract.fields:
            text: str = getattr(product, field.name)
            if text:
                clipped, was_cut = _clip(text, field.max_chars)
                pieces.append((places.setdefault(clipped, len(places)), field.max_tokens))
                cut = cut or was_cut
        return pieces, cut


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
    lengths = np.array([len(row.ids) for row in rows])
    width = int(lengths.max()) if length is None else length
    if lengths.max() > width:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit a length of {width}")
    columns = np.arange(width)
    filled = columns < lengths[:, None]
    input_ids = np.full(filled.shape, template.pad_id, dtype=np.int64)
    input_ids[filled] = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int64, lengths.sum())
    types = np.zeros(filled.shape, dtype=np.int64)
    if template.type_ids:
        types[filled & (columns >= np.array([row.query_tokens for row in rows])[:, None])] = 1
    return {"input_ids": input_ids, "attention_mask": filled.astype(np.int64), "token_type_ids": types}


def _clip(text: str, max_chars: int) -> tuple[str, bool]:
    """Return at most `max_chars` characters, lone surrogates replaced, and whether any were dropped."""
    clipped = text[:max_chars]
    if not clipped.isascii():
        clipped = _SURROGATE.sub("\ufffd", clipped)
    return clipped, len(text) > max_chars
