"""Tests of service/cache/pair_keys.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import Product
from service.cache.pair_keys import KEY_BYTES, pair_keys, product_digest

NAMES = Product._fields
texts = st.text(
    st.characters(codec=None, categories=["Lu", "Cs", "Cc"]) | st.sampled_from("a\0,:é"), max_size=4
)
products = st.builds(Product, **dict.fromkeys(NAMES, texts))


@given(products, products)
def test_products_share_a_digest_only_if_they_are_equal(one: Product, other: Product) -> None:
    """Any two products, lone surrogates and control characters included, differ in digest as they do in text."""
    assert (one == other) == (product_digest(one) == product_digest(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Product(title="ab"), Product(title="a", brand="b")),
        (Product(title="a", brand="b"), Product(title="a", color="b")),
        (Product(title="a\0b"), Product(title="a", brand="b")),
        (Product(text="1a"), Product(description="1", text="a")),
        (Product(title="\ud800"), Product(title="\ufffd")),
        (Product(title="\ud800", brand="\udc00"), Product(title="\ud800\udc00")),
        (Product(title="é"), Product(title="e\u0301")),
    ],
)
def test_texts_do_not_flow_from_field_to_field(one: Product, other: Product) -> None:
    """Products whose texts are the same when written one after another have different digests."""
    assert product_digest(one) != product_digest(other)


@given(st.binary(max_size=3), texts, st.binary(max_size=3), texts)
def test_bundle_and_query_do_not_flow_into_each_other(
    bundle: bytes, query: str, other_bundle: bytes, other_query: str
) -> None:
    """A key is another one if the bundle's key or the query is."""
    digests = [bytes(KEY_BYTES)]
    same = (bundle, query) == (other_bundle, other_query)

    assert same == (pair_keys(bundle, query, digests) == pair_keys(other_bundle, other_query, digests))


def test_keys_come_in_order() -> None:
    """Each product has its own key of 16 bytes, whatever list it stands in."""
    digests = [product_digest(Product(title=title)) for title in "abc"]
    keys = pair_keys(b"bundle", "query", digests)

    assert len(set(keys)) == 3
    assert {KEY_BYTES} == {len(key) for key in keys}
    assert keys[2:] == pair_keys(b"bundle", "query", digests[2:])


def test_a_key_stays_the_same() -> None:
    """Keys are those of earlier processes and of other replicas, which a shared cache relies on."""
    digest = product_digest(Product(title="Bluetooth speaker", brand="Sony"))

    assert digest.hex() == "d52fc4f5b70ba36486ddec1db792cdbd"
    assert pair_keys(b"3f2a/int8/cpu", "speaker", [digest])[0].hex() == "895ffc106f579f2630c23d9a2a0a35a2"
