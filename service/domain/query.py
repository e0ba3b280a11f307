"""PURE. A query and the products to rank for it, whichever API they were asked by.

Knows fields and ids; does not know JSON as a whole, limits, the model or how anything is scored.
Invariant: a document has a text field or an id, and a product that lost text to the limits says so by its type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct

from bundle import Product
from service.domain.budget import NO_REQUESTED_TERMS, RequestedTerms

TEXT_FIELDS: Final = Product._fields
Identifier = Annotated[str, Meta(max_length=256)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
NO_TEXT: Final = "no text field"
"""How the error begins that a document without anything raises."""


class Document(Struct, omit_defaults=True, gc=False):
    """A product; a text field or an id is given, and fields not listed here are ignored."""

    id: Identifier | None = None
    title: str | None = None
    brand: str | None = None
    color: str | None = None
    category: str | None = None
    bullets: str | list[str] | None = None
    description: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        """Refuse a document without anything while parsing, so that a flood of `{}` ends at its first.

        Being Python, it also lets the event loop have the interpreter in between when a worker parses.
        """
        if self.id is None and self.title is None and not self.has_texts:
            raise ValueError(NO_TEXT)

    @property
    def has_texts(self) -> bool:
        """Whether any text field is given, be it empty."""
        return not (
            self.title is self.brand is self.color is self.category is None
            and self.bullets is self.description is self.text is None
        )


@dataclass(slots=True)  # not frozen, which makes making one three times as slow
class Reference:
    """A product of the catalogue by its id, and the fields that were sent with it, if any."""

    id: str | int
    product: Product | None


class Clipped(Product):
    """A product of which a text was longer than this server keeps, and lost its end."""


RequestedProduct = Product | Reference
"""A product as it was asked for: by its texts, or by its id where there is a catalogue."""


@dataclass(frozen=True, slots=True)
class Query:
    """A request that can be scored: its query, its products, and what to return of them.

    `clipped` of its products lost text to the limits; with `raw_scores` its scores are logits; `ignored` are those of
    its unknown keys.
    """

    text: str
    documents: Sequence[str | Document]
    products: Sequence[RequestedProduct]
    top_n: int
    return_documents: bool
    model: str | None
    requested_terms: RequestedTerms = NO_REQUESTED_TERMS
    clipped: int = 0
    raw_scores: bool = False
    ignored: Sequence[str] = ()


def text_chars(product: Product) -> int:
    """Return the number of characters of a product, over all its fields."""
    return sum(map(len, product))
