"""Tests of service/catalogue/record.py."""

from hypothesis import given
from hypothesis import strategies as st

from bundle import Product
from bundle.text import Packed
from service.cache.pair_keys import product_digest
from service.catalogue.record import DIGEST_BYTES, ResolvedProduct, product_key, read_record, write_record

TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)  # surrogates, NUL and all
PRODUCTS = st.builds(Product, **dict.fromkeys(Product._fields, TEXTS))
IDS = st.text(st.characters(exclude_categories=()), max_size=256) | st.integers(-(2**63), 2**63 - 1)
LONGEST_KEY = 511 - 8  # LMDB's limit, less the text key before it


@given(PRODUCTS)
def test_what_is_read_is_what_was_written(product: Product) -> None:
    """Any texts survive, and the digest is the one by which the score cache knows a product sent as text."""
    assert read_record(write_record(product)) == (product, product_digest(product))


@given(IDS, IDS)
def test_ids_share_a_key_only_if_they_read_the_same(first: str | int, second: str | int) -> None:
    """Two ids are one product exactly if they are the same text, however they were sent."""
    assert (product_key(first) == product_key(second)) == (str(first) == str(second))


@given(IDS | st.text("\U0001f50e", min_size=200, max_size=256))
def test_a_key_fits_the_database(identifier: str | int) -> None:
    """The longest id that a request may have gives a key that LMDB takes."""
    assert 1 <= len(product_key(identifier)) <= LONGEST_KEY


def test_a_long_id_is_told_from_its_like() -> None:
    """Ids too long for a key differ by their last character, and none is taken for a short one."""
    long_ids = ["🔎" * 255 + end for end in "ab"]

    assert len({*map(product_key, long_ids), product_key("#"), product_key("=")}) == 4


@given(PRODUCTS, PRODUCTS)
def test_overrides_have_a_digest_of_their_own(stored: Product, overrides: Product) -> None:
    """Overrides with a text change the digest, of payload and of texts alike; without one nothing changes."""
    packed = ResolvedProduct(Packed(b"payload"), product_digest(stored))
    texts = ResolvedProduct(stored, product_digest(stored))
    changed, unpacked = packed.with_overrides(overrides), texts.with_overrides(overrides)

    if overrides == Product():
        assert (changed, unpacked) == (packed, texts)
    else:
        assert changed.product == Packed(b"payload", overrides)
        assert isinstance(unpacked.product, Product)
        assert changed.digest == unpacked.digest != packed.digest
        assert len(changed.digest) == DIGEST_BYTES
        for name in Product._fields:
            text = getattr(overrides, name) or getattr(stored, name)
            assert getattr(unpacked.product, name) == text
