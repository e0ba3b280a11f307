"""The request and its errors as types, and the checks that every request to rank passes.

Knows JSON and the settings that bound a request; does not know HTTP, the model or how anything is scored.
Invariant: what passes can be scored; what does not is Refused with a closed code, without an echo.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from bundle import Product
from service.domain.budget import OnFailure, Priority, RequestedTerms, to_priority
from service.domain.query import NO_TEXT, Clipped, Document, Reference, RequestedProduct
from service.errors import Location, Reason, Refused, error_message
from service.settings import Settings

LISTS: Final = ("documents", "texts", "products")


Parsed = TypeVar("Parsed")


class RerankRequest(Struct):
    """A query and the documents to rank for it; one of documents, texts and products is given."""

    query: Annotated[str, Meta(description="What the shopper typed; not blank.")]
    documents: Annotated[
        list[str | Document] | None, Meta(description="The documents, as text or by field.")
    ] = None
    texts: Annotated[list[str | Document] | None, Meta(description="Another name for documents.")] = None
    products: Annotated[list[str | Document] | None, Meta(description="Another name for documents.")] = None
    top_n: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="Return the best so many only.")] = (
        None
    )
    return_documents: Annotated[
        bool | None, Meta(description="Return each document with its result; false if not given.")
    ] = None
    model: Annotated[
        str | None, Meta(description="A model served here; any other name counts as none, unless refused.")
    ] = None
    budget_ms: Annotated[
        float | None, Meta(description="Milliseconds from the first byte; also the header x-budget-ms.")
    ] = None
    priority: Annotated[
        Priority | int | None,
        Meta(description="Most urgent first, or its place from 0; search if not given."),
    ] = None
    on_failure: Annotated[
        OnFailure | None, Meta(description="What to do when not all can be scored: all, or an error.")
    ] = None

    @property
    def requested_terms(self) -> RequestedTerms:
        """What it asks for beside its ranking."""
        return RequestedTerms(self.budget_ms, to_priority(self.priority), self.on_failure)


class ErrorAnswer(Struct):
    """A refused request."""

    error: Annotated[str, Meta(description="Closed code.")]
    message: Annotated[str, Meta(description="Fixed text for the code.")]
    detail: Annotated[str, Meta(description="The message and the place, for clients that read it here.")]
    loc: Annotated[list[str | int], Meta(description="Where in the body the fault is.")]
    id: Annotated[str, Meta(description="The request id.")]


def error_body(reason: Reason, loc: Location, request_id: str) -> bytes:
    """Write an error in our own form."""
    answer = ErrorAnswer(reason.code, reason.message, error_message(reason, loc), list(loc), request_id)
    return msgspec.json.encode(answer)


_PATH: Final = re.compile(r" - at `\$((?:\.[a-z_][a-z_0-9]*|\[\d+\])+)`$")
_MISSING: Final = re.compile(r"Object missing required field `([a-z_][a-z_0-9]*)`")
_STEP: Final = re.compile(r"[a-z_][a-z_0-9]*|\d+")


def check_query(query: str, limits: Settings, *loc: str | int) -> None:
    """Refuse a query that is blank or too long; `loc` says where it stands."""
    if not query.strip():
        raise Refused(Reason.BLANK_QUERY, loc)
    if len(query) > limits.max_query_chars:
        raise Refused(Reason.TEXT_TOO_LONG, loc)


def to_products(documents: Sequence[str | Document], limits: Settings, name: str) -> list[RequestedProduct]:
    """Return the products of a list that stands under `name`; refuse too many, and a list without any text.

    A document without a text is an empty one beside others, whom it is not to cost their answer.
    """
    if len(documents) > limits.max_documents:
        raise Refused(Reason.TOO_MANY_DOCUMENTS, (name,))
    asked = [_requested_product(document, limits) for document in documents]
    if documents and not any(asked):
        raise Refused(Reason.EMPTY_DOCUMENT, (name, 0))
    return [item or Product() for item in asked]


def count_clipped(products: Sequence[RequestedProduct]) -> int:
    """Return how many products lost text to the limits."""
    own = (item.product if isinstance(item, Reference) else item for item in products)
    return sum(isinstance(product, Clipped) for product in own)


def decode(decoder: msgspec.json.Decoder[Parsed], body: bytes) -> Parsed:
    """Decode a body strictly; Refused with the place of the first fault if it is not of the decoder's type."""
    try:
        if not body.isascii():
            str(body, "utf-8")  # msgspec does not look into fields that it skips
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        if message.startswith("Object contains unknown field"):
            raise Refused(Reason.UNKNOWN_FIELD) from None  # the rest of this message is the client's text
        reason = Reason.EMPTY_DOCUMENT if message.startswith(NO_TEXT) else Reason.INVALID_FIELD
        raise Refused(reason, _location(message)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(Reason.MALFORMED_JSON) from None


def _location(message: str) -> Location:
    """Read the path at the end of msgspec's message, and what is missing there; its names are those of our structs."""
    match, missing = _PATH.search(message), _MISSING.match(message)
    steps = [*(_STEP.findall(match[1]) if match else ()), *(missing.groups() if missing else ())]
    return tuple(int(step) if step.isdigit() else step for step in steps)


def document_list(request: Struct) -> tuple[str, list[Any]]:
    """Return the one list of documents that a request has, and its name; Refused if there is none, or another."""
    given = [(name, getattr(request, name)) for name in LISTS if getattr(request, name) is not None]
    if not given:
        raise Refused(Reason.MISSING_DOCUMENTS)
    if len(given) > 1:
        raise Refused(Reason.AMBIGUOUS_DOCUMENTS, (given[1][0],))
    return given[0]


def _requested_product(document: str | Document, limits: Settings) -> RequestedProduct | None:
    """Return a product; one with an id is one of the catalogue, if there is a catalogue. None if it has no text."""
    if isinstance(document, str):
        most = limits.max_field_chars
        return Product(text=document) if len(document) <= most else Clipped(text=document[:most])
    product = to_product(document, limits.max_field_chars)
    if document.id is not None and limits.catalogue:
        return Reference(document.id, product)
    return product


def to_product(document: Document, max_chars: int) -> Product | None:
    """Return the texts of a document, each up to so many characters; None if it has none."""
    if document.title is None and not document.has_texts:
        return None
    bullets = document.bullets
    product = Product(
        document.title or "",
        document.brand or "",
        document.color or "",
        document.category or "",
        "\n".join(bullets) if isinstance(bullets, list) else bullets or "",
        document.description or "",
        document.text or "",
    )
    if max(map(len, product)) > max_chars:
        return Clipped(*(text[:max_chars] for text in product))
    return product
