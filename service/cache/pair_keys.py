"""PURE. Names a query and product pair by 16 bytes that say what its logit depends on.

Knows texts and digests; does not know a cache, a bundle or a score.
Invariant: two pairs have one key only if their logits come from the same graph, query and product texts.
"""

import hashlib
from collections.abc import Sequence
from struct import Struct
from typing import Final

from bundle import Product

KEY_BYTES: Final = 16  # accidental collisions are out of reach: 2**-64 at four billion pairs
_lengths: Final = Struct(f"<{len(Product._fields)}I").pack
_length: Final = Struct("<I").pack

# Every hash starts with what kind of key it is; a product's also with its fields, so a new one gives new digests.
_PRODUCT: Final = hashlib.blake2b(
    ",".join(Product._fields).encode() + b"\0", digest_size=KEY_BYTES, person=b"product"
)
_PAIR: Final = hashlib.blake2b(digest_size=KEY_BYTES, person=b"pair")


def product_digest(product: Product) -> bytes:
    """Return 16 bytes that stand for all texts of a product.

    The length of each field comes before the texts, so no text can pass for two. Lone surrogates are digested as
    they are: a product that has one is another than its like with U+FFFD, although both read the same.
    """
    digest = _PRODUCT.copy()
    digest.update(_lengths(*map(len, product)) + "".join(product).encode("utf-8", "surrogatepass"))
    return digest.digest()


def pair_keys(bundle_key: bytes, query: str, digests: Sequence[bytes]) -> list[bytes]:
    """Return the keys of a query and products, each 16 bytes, in order.

    `bundle_key` says what computes the logit: bundle, precision and device. `digests` are those of `product_digest`.
    """
    text = query.encode("utf-8", "surrogatepass")
    asked = _PAIR.copy()
    asked.update(_length(len(bundle_key)) + bundle_key + _length(len(text)) + text)
    keys = []
    for digest in digests:
        key = asked.copy()
        key.update(digest)
        keys.append(key.digest())
    return keys
