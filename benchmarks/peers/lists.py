"""The lists that every reranker is given, and how many tokens each way of batching computes for them.

Knows products, a bundle's text contract and rules of padding; does not know rerankers, processes or time.
Invariant: a reranker that joins the fields by blanks sees the same token ids as shelfrank, so all do the same work.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from benchmarks.shared.products import PRODUCTS, make_bodies, read_products
from bundle import Bundle, PairEncoder, Product

FIELDS: Final = ("title", "brand", "color")
"""What is sent of a product; more would be cut at other places by each reranker."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One list: its query, its products as fields and as texts, and the tokens of each pair."""

    query: str
    products: list[dict[str, str]]
    texts: list[str]
    tokens: list[int]


class Lists:
    """Makes lists for one bundle out of one file of products."""

    def __init__(self, bundle: Bundle, products: Path = PRODUCTS) -> None:
        """Read the products; texts that the bundle would cut lose their last words here, since others cut elsewhere."""
        contract = bundle.manifest.text
        tokenizer_json = bundle.files[bundle.manifest.tokenizer]
        self._encoder = PairEncoder(tokenizer_json, contract)
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(contract.max_length)
        rows = read_products(products)
        shortened = [
            self._shorten({name: row.get(name) or "" for name in ("query", *FIELDS)}) for row in rows
        ]
        self.products = [row for row in shortened if self._is_same(row)]
        if not self.products:
            raise ValueError(f"no product of {products} is read alike by shelfrank and by others")

    def make(self, size: int, count: int, seed: int) -> list[Ask]:
        """Return lists of `size` products: the query's own first, then others, then some again if there are too few."""
        rng = random.Random(f"{seed}/{size}")  # noqa: S311 - load, not secrets
        bodies = make_bodies(self.products, size, rng)[:count]
        asks = []
        for body in map(json.loads, bodies):
            chosen = body["documents"]
            chosen += rng.choices(chosen, k=size - len(chosen))
            rows = self._encoder.encode(body["query"], [Product(**product) for product in chosen])
            asks.append(Ask(body["query"], chosen, list(map(joined, chosen)), rows.lengths))
        return asks

    def _shorten(self, row: dict[str, str]) -> dict[str, str]:
        """Take words off the ends of fields until the bundle reads all that is left."""
        product = {name: row[name] for name in FIELDS}
        while clipped := self._clipped(row["query"], product):
            for name in clipped:
                product[name] = " ".join(product[name].split()[:-1])
        return {"query": row["query"], **product}

    def _clipped(self, query: str, product: Mapping[str, str]) -> list[str]:
        """Return the fields that are not read to their end."""
        _, (use,) = self._encoder.measure(query, [Product(**product)])
        return [text.name for text in use.fields if text.is_clipped]

    def _is_same(self, row: Mapping[str, str]) -> bool:
        product = {name: row[name] for name in FIELDS}
        (own,) = self._encoder.encode(row["query"], [Product(**product)])
        return own.ids == tuple(self._tokenizer.encode(row["query"], joined(product)).ids)

    def computed_tokens(self, ask: Ask, rule: str) -> int:
        """Return how many tokens, padding included, a rule of batching computes for a list.

        "none" pads nothing, "list" pads all to the longest, "chunks N" each N in the order
        given to their longest, "sorted N" the same after sorting by characters.
        """
        kind, _, number = rule.partition(" ")
        tokens = ask.tokens
        if kind == "none":
            return sum(tokens)
        if kind == "sorted":
            places = sorted(range(len(tokens)), key=lambda place: -len(ask.texts[place]))
            tokens = [tokens[place] for place in places]
        size = int(number) if number else len(tokens)
        parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        return sum(len(part) * max(part) for part in parts)


def joined(product: Mapping[str, str]) -> str:
    """Return a product's fields as one text, for rerankers that know no fields."""
    return " ".join(product[name] for name in FIELDS if product.get(name))


def calibration_pairs(lists: Lists, count: int, seed: int) -> list[tuple[str, str]]:
    """Return pairs for a peer that is calibrated: each product with its own query."""
    chosen = random.Random(seed).sample(lists.products, min(count, len(lists.products)))  # noqa: S311 - as above
    return [(row["query"], joined(row)) for row in chosen]


def as_pairs(asks: Sequence[Ask]) -> list[tuple[str, list[str]]]:
    """Return queries and texts alone."""
    return [(ask.query, ask.texts) for ask in asks]
