"""Tests of service/api/products.py, on a real catalogue."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle import PairEncoder, Product
from service.api.products import (
    MAX_PRODUCTS,
    ProductsDeleted,
    ProductsStored,
    delete_product,
    delete_products,
    parse_products,
    show_product,
    store_products,
)
from service.cache.pair_keys import product_digest
from service.catalogue.catalogue import Catalogue
from service.catalogue.record import StoredProduct
from service.errors import Reason, Refused
from service.settings import Settings
from tests.tiny import text_contract, tokenizer_json

ENCODER = PairEncoder(tokenizer_json(), text_contract(tokenizer_json()))
LIMITS = Settings(max_field_chars=100, max_documents=2)
MUG = {"id": "a", "title": "steel mug", "bullets": ["hot", "cold"], "price": 3}
SHOE = {"id": 7, "title": "red shoe"}
EXPECTED = [
    StoredProduct("a", Product(title="steel mug", bullets="hot\ncold")),
    StoredProduct(7, Product(title="red shoe")),
]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    """An empty catalogue."""
    opened = Catalogue(tmp_path, 4 << 20)
    yield opened
    opened.close()


def _object(*products: object) -> bytes:
    return json.dumps({"products": products}).encode()


def _lines(*products: object) -> bytes:
    return b"".join(json.dumps(product).encode() + b"\n" for product in products)


def _store(catalogue: Catalogue, body: bytes, *, ndjson: bool = False) -> ProductsStored:
    return store_products(catalogue, [ENCODER], body, LIMITS, ndjson=ndjson)


@pytest.mark.parametrize(
    ("body", "ndjson"),
    [
        (_object(MUG, SHOE), False),
        (_lines(MUG, SHOE), True),
        (_lines(MUG, SHOE).rstrip(), True),
        (_lines(MUG, SHOE).replace(b"\n", b"\r\n"), True),
        (b"\n \n" + _lines(MUG) + b"\n" + _lines(SHOE) + b"\t\n", True),
    ],
)
def test_both_forms_give_the_same_products(body: bytes, *, ndjson: bool) -> None:
    """An object and lines say the same; fields that are not ours are ignored, lists become lines."""
    assert parse_products(body, LIMITS, ndjson=ndjson) == EXPECTED


@pytest.mark.parametrize(("body", "ndjson"), [(_object(), False), (b"", True), (b"\n\n", True)])
def test_no_products_are_no_fault(catalogue: Catalogue, body: bytes, *, ndjson: bool) -> None:
    """An empty feed stores nothing."""
    assert _store(catalogue, body, ndjson=ndjson) == ProductsStored(0, 0)


@pytest.mark.parametrize(
    ("product", "reason", "loc"),
    [
        ({"title": "mug"}, Reason.INVALID_FIELD, ("id",)),
        ({"id": None, "title": "mug"}, Reason.INVALID_FIELD, ("id",)),
        ({"id": "", "title": "mug"}, Reason.INVALID_FIELD, ("id",)),
        ({"id": "x" * 257, "title": "mug"}, Reason.INVALID_FIELD, ("id",)),
        ({"id": True, "title": "mug"}, Reason.INVALID_FIELD, ("id",)),
        ({"id": ["a"], "title": "mug"}, Reason.INVALID_FIELD, ("id",)),
        ("mug", Reason.INVALID_FIELD, ()),
    ],
)
def test_a_fault_is_placed_and_nothing_is_stored(
    catalogue: Catalogue, product: object, reason: Reason, loc: tuple[str | int, ...]
) -> None:
    """The refusal names product and field, or the line from 1, and the good products before it are not stored."""
    for body, ndjson, place in (
        (_object(MUG, product, SHOE), False, ("products", 1)),
        (_lines(MUG, product, SHOE), True, ("line", 2)),
    ):
        with pytest.raises(Refused) as caught:
            _store(catalogue, body, ndjson=ndjson)
        assert (caught.value.reason, caught.value.loc) == (reason, (*place, *loc))
    assert catalogue.count() == 0


def test_a_product_may_be_as_odd_as_a_feed_has_it() -> None:
    """Numbers become texts, lists are joined, nulls are nothing, half a surrogate pair is U+FFFD, a long text is clipped."""
    odd = {
        "id": 2**63,
        "title": 5,
        "brand": None,
        "category": ["a", None, "b"],
        "bullets": ["c", 1.5],
        "price": {},
    }
    products = [odd, {"id": 1, "title": "x" * 101}, {"id": 2, "text": "mug \ud83d"}, {"id": 3}]
    expected = [
        StoredProduct(str(2**63), Product(title="5", category="a\nb", bullets="c\n1.5")),
        StoredProduct(1, Product(title="x" * 100)),
        StoredProduct(2, Product(text="mug \ufffd")),
        StoredProduct(3, Product()),
    ]

    assert expected == parse_products(_object(*products), LIMITS, ndjson=False)
    assert expected == parse_products(_lines(*products), LIMITS, ndjson=True)


@pytest.mark.parametrize(("body", "ndjson"), [(_object({"id": 1}), False), (_lines({"id": 1}), True)])
def test_a_feed_without_any_text_is_refused(body: bytes, *, ndjson: bool) -> None:
    """If no product has a text, its fields have other names than ours, and the first place is told."""
    with pytest.raises(Refused) as caught:
        parse_products(body, LIMITS, ndjson=ndjson)
    assert (Reason.EMPTY_DOCUMENT, ("line", 1) if ndjson else ("products", 0)) == (
        caught.value.reason,
        caught.value.loc,
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1, "title": "mug"', Reason.MALFORMED_JSON),
        (b'{"id": 1, "title": "\xff"}', Reason.MALFORMED_JSON),
        (b'{"id": 1, "title": "mug"} {}', Reason.MALFORMED_JSON),
        (b'[{"id": 1, "title": "mug"}]', Reason.INVALID_FIELD),
    ],
)
def test_a_line_that_is_no_product_is_named(catalogue: Catalogue, line: bytes, reason: Reason) -> None:
    """Blank lines count, so that the number is the one that an editor shows."""
    with pytest.raises(Refused) as caught:
        _store(catalogue, _lines(MUG) + b"\n" + line + b"\n" + _lines(SHOE), ndjson=True)
    assert (caught.value.reason, caught.value.loc) == (reason, ("line", 3))
    assert catalogue.count() == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.MALFORMED_JSON),
        (b"[]", Reason.INVALID_FIELD),
        (b"{}", Reason.INVALID_FIELD),
        (b'{"products": [], "prodcuts": []}', Reason.UNKNOWN_FIELD),
    ],
)
def test_a_body_that_is_no_request_is_refused(catalogue: Catalogue, body: bytes, reason: Reason) -> None:
    """The object has products and nothing else."""
    with pytest.raises(Refused) as caught:
        _store(catalogue, body)
    assert caught.value.reason is reason


def test_one_request_has_a_bound() -> None:
    """More products than one transaction may have are refused in both forms; the bound itself is not."""
    line = b'{"id":1,"title":""}'
    for body, ndjson in (
        (b'{"products":[' + b",".join([line] * (MAX_PRODUCTS + 1)) + b"]}", False),
        (b"\n".join([line] * (MAX_PRODUCTS + 1)), True),
    ):
        with pytest.raises(Refused) as caught:
            parse_products(body, LIMITS, ndjson=ndjson)
        assert caught.value.reason is Reason.TOO_MANY_DOCUMENTS
    assert len(parse_products(b"\n".join([line] * MAX_PRODUCTS), LIMITS, ndjson=True)) == MAX_PRODUCTS


@given(body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode), ndjson=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_answered_or_refused(catalogue: Catalogue, body: bytes, *, ndjson: bool) -> None:
    """No body raises anything but a refusal, to store or to delete."""
    for call in (
        lambda: _store(catalogue, body, ndjson=ndjson),
        lambda: delete_products(catalogue, body),
    ):
        try:
            call()
        except Refused as refusal:
            assert refusal.reason.status < 500  # noqa: PT017 - most bytes are refused, not all


def test_a_product_is_stored_shown_and_deleted(catalogue: Catalogue) -> None:
    """Under the id of its path a product shows its fields, its hash and its tokens, until it is deleted."""
    assert _store(catalogue, _object(MUG, SHOE)) == ProductsStored(2, 0)
    assert _store(catalogue, _lines(MUG, SHOE), ndjson=True) == ProductsStored(0, 2)

    shown = msgspec.json.decode(msgspec.json.encode(show_product(catalogue, ENCODER, "7")))
    assert shown == {
        "id": "7",
        "fields": {"title": "red shoe"},
        "content_hash": product_digest(Product(title="red shoe")).hex(),
        "tokens": 2,
    }
    assert delete_product(catalogue, "7") == ProductsDeleted(1, 0)
    for call in (lambda: show_product(catalogue, ENCODER, "7"), lambda: delete_product(catalogue, "7")):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.reason is Reason.PRODUCT_NOT_FOUND


def test_many_products_are_deleted_at_once(catalogue: Catalogue) -> None:
    """Numbers and texts name the same products, and those that are not there are counted, each once."""
    _store(catalogue, _object(MUG, SHOE))

    assert delete_products(catalogue, b'{"ids": ["a", "7", 7, "x", 8, 8]}') == ProductsDeleted(2, 2)
    assert catalogue.count() == 0


@pytest.mark.parametrize("body", [b"{}", b'{"ids": [1.5]}', b'{"ids": "a"}', b'{"ids": [], "all": true}'])
def test_a_body_that_deletes_nothing_clear_is_refused(catalogue: Catalogue, body: bytes) -> None:
    """Only a list of ids deletes."""
    _store(catalogue, _object(MUG))

    with pytest.raises(Refused) as caught:
        delete_products(catalogue, body)
    assert caught.value.reason in {Reason.INVALID_FIELD, Reason.UNKNOWN_FIELD}
    assert catalogue.count() == 1
