"""Reads the requests that fill the catalogue, carries them out, and says what came of them.

Knows their bodies, products and the catalogue; does not know HTTP, threads or how a product is ranked.
Invariant: a request with a fault changes nothing; any body gives an answer or Refused, without an echo.

Every function works as long as its body is large: call them on a thread of their own, not on the event loop.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from bundle import PairEncoder, Product
from service.api.lenient import normalize_product, normalize_request, normalized
from service.api.schema import Parsed, decode, to_product
from service.catalogue.catalogue import Catalogue
from service.catalogue.record import StoredProduct
from service.domain.query import TEXT_FIELDS, Document, Identifier
from service.errors import Location, Reason, Refused
from service.settings import Settings

MAX_PRODUCTS: Final = 50_000  # of one request: it is stored in one transaction, and held in memory until then
NDJSON: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


class PutRequest(Struct, forbid_unknown_fields=True):
    """Products to store, each under its id; one that is there already is replaced."""

    products: Annotated[list[Document], Meta(description="The products, each with an id and its fields.")]


class DeleteRequest(Struct, forbid_unknown_fields=True):
    """Products to delete; one that is not there is no fault."""

    ids: list[Identifier]


class ProductsStored(Struct):
    """What came of storing products."""

    stored: Annotated[int, Meta(description="Products that are new or changed.")]
    unchanged: Annotated[int, Meta(description="Products that were there already just so.")]


class ProductsDeleted(Struct):
    """What came of deleting products."""

    deleted: Annotated[int, Meta(description="Products that were there.")]
    unknown: Annotated[int, Meta(description="Ids that were not.")]


class ProductFields(Struct, omit_defaults=True):
    """The texts of a product as they are stored; a field that is empty is left out."""

    title: str = ""
    brand: str = ""
    color: str = ""
    category: str = ""
    bullets: str = ""
    description: str = ""
    text: str = ""


class StoredAnswer(Struct):
    """A product of the catalogue."""

    id: str
    fields: ProductFields
    content_hash: Annotated[str, Meta(description="Stands for all of its texts.")]
    tokens: Annotated[
        int, Meta(description="Tokens of the fields that the model reads, each within its limit.")
    ]


_PUT: Final = msgspec.json.Decoder(PutRequest)
_DELETE: Final = msgspec.json.Decoder(DeleteRequest)
_LINE: Final = msgspec.json.Decoder(Document)


def is_ndjson(content_type: str) -> bool:
    """Return whether a content type says one JSON document a line.

    >>> is_ndjson("application/x-ndjson; charset=utf-8"), is_ndjson("application/json")
    (True, False)
    """
    return content_type.partition(";")[0].strip().lower() in NDJSON


def parse_products(body: bytes, limits: Settings, *, ndjson: bool) -> list[StoredProduct]:
    """Return the products of a body, a JSON object or one product a line; Refused says which has a fault.

    A product without a text is stored as an empty one beside others, whom it is not to cost their place.
    """
    read = list(_lines(body) if ndjson else _entries(body))
    texts = [to_product(document, limits.max_field_chars) for _, document in read]
    if texts and not any(texts):
        raise Refused(Reason.EMPTY_DOCUMENT, read[0][0])
    return [
        StoredProduct(_id_of(document, loc), product or Product())
        for (loc, document), product in zip(read, texts, strict=True)
    ]


def parse_ids(body: bytes) -> list[str | int]:
    """Return the ids of a body that names products to delete."""
    ids: list[str | int] = decode(_DELETE, body).ids
    if len(ids) > MAX_PRODUCTS:
        raise Refused(Reason.TOO_MANY_DOCUMENTS, ("ids",))
    return ids


def store_products(
    catalogue: Catalogue, encoders: Sequence[PairEncoder], body: bytes, limits: Settings, *, ndjson: bool
) -> ProductsStored:
    """Store the products of a body, all or none, with a payload for each of the models that are served."""
    counts = catalogue.put(parse_products(body, limits, ndjson=ndjson), encoders)
    return ProductsStored(counts.stored, counts.unchanged)


def delete_products(catalogue: Catalogue, body: bytes) -> ProductsDeleted:
    """Delete the products that a body names."""
    return _delete(catalogue, parse_ids(body))


def show_product(catalogue: Catalogue, encoder: PairEncoder, identifier: str) -> StoredAnswer:
    """Return a product; Refused with PRODUCT_NOT_FOUND if there is none of this id."""
    found = catalogue.get(identifier)
    if found is None:
        raise Refused(Reason.PRODUCT_NOT_FOUND)
    product, digest = found
    fields = ProductFields(**{name: getattr(product, name) for name in TEXT_FIELDS})
    (payload,) = encoder.pack([product])
    return StoredAnswer(identifier, fields, digest.hex(), encoder.packed_tokens(payload))


def delete_product(catalogue: Catalogue, identifier: str) -> ProductsDeleted:
    """Delete one product; Refused with PRODUCT_NOT_FOUND if there is none of this id."""
    answer = _delete(catalogue, [identifier])
    if not answer.deleted:
        raise Refused(Reason.PRODUCT_NOT_FOUND)
    return answer


def _delete(catalogue: Catalogue, ids: Sequence[str | int]) -> ProductsDeleted:
    wanted = {str(identifier) for identifier in ids}
    deleted = catalogue.delete(wanted)
    return ProductsDeleted(deleted, len(wanted) - deleted)


def _entries(body: bytes) -> Iterator[tuple[Location, Document]]:
    """Yield each product of an object, and where it stands."""
    documents = _decode(_PUT, body, normalize_request).products
    if len(documents) > MAX_PRODUCTS:
        raise Refused(Reason.TOO_MANY_DOCUMENTS, ("products",))
    yield from ((("products", index), document) for index, document in enumerate(documents))


def _lines(body: bytes) -> Iterator[tuple[Location, Document]]:
    """Yield the product of each line, and which line it is: they count from 1, and one of blanks is passed over."""
    products = 0
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        products += 1
        if products > MAX_PRODUCTS:
            raise Refused(Reason.TOO_MANY_DOCUMENTS, ("line", number))
        try:
            yield ("line", number), _decode(_LINE, line, normalize_product)
        except Refused as refusal:
            raise Refused(refusal.reason, ("line", number, *refusal.loc)) from None


def _decode(decoder: msgspec.json.Decoder[Parsed], body: bytes, lenient: Callable[[bytes], bytes]) -> Parsed:
    """Decode a body; if it is refused, decode it once more in normalized form."""
    try:
        return decode(decoder, body)
    except Refused:
        whole = normalized(body, lenient)
        if whole is None:
            raise
        return decode(decoder, whole)


def _id_of(document: Document, loc: Location) -> str | int:
    if document.id is None or document.id == "":
        raise Refused(Reason.INVALID_FIELD, (*loc, "id"))
    return document.id
