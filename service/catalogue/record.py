"""PURE: what the catalogue keeps of a product, as keys and bytes.

Knows products, their ids and one form of writing them; does not know a database or a tokenizer.
Invariant: what is read is what was written, and two ids share a key only if they are the same text.
"""

import hashlib
from dataclasses import dataclass
from struct import Struct
from typing import Final

from bundle import Product
from bundle.text import Packed
from service.cache.pair_keys import KEY_BYTES, product_digest

DIGEST_BYTES: Final = KEY_BYTES
FORMAT: Final = "shelfrank catalogue 1: " + ",".join(Product._fields)
MAX_PLAIN_ID_BYTES: Final = 256  # a key of LMDB has at most 511 bytes, an id of 256 characters up to 1,024
_PLAIN, _HASHED = b"=", b"#"
_LENGTHS: Final = Struct(f"<{len(Product._fields)}I")
_OVERRIDDEN: Final = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"overridden")


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product under the id by which requests will name it."""

    id: str | int
    product: Product


@dataclass(frozen=True, slots=True)
class ResolvedProduct:
    """A product of the catalogue as `PairEncoder.encode` takes it, and the digest of all its texts."""

    product: Packed | Product
    digest: bytes

    def with_overrides(self, overrides: Product) -> "ResolvedProduct":
        """Return it with the fields of `overrides` that are not empty in place of its own.

        Its digest then stands for the stored texts and these overrides; the same texts, sent otherwise, have another.
        """
        given = {name: text for name, text in overrides._asdict().items() if text}
        if not given:
            return self
        digest = _OVERRIDDEN.copy()
        digest.update(self.digest + product_digest(overrides))
        if isinstance(self.product, Packed):
            return ResolvedProduct(Packed(self.product.payload, overrides), digest.digest())
        return ResolvedProduct(self.product._replace(**given), digest.digest())


def product_key(identifier: str | int) -> bytes:
    """Return the key of an id: 1 and "1" are one product, since a path or a feed cannot tell them apart.

    >>> product_key(1) == product_key("1") == b"=1", product_key("01")
    (True, b'=01')
    """
    raw = str(identifier).encode("utf-8", "surrogatepass")
    return _PLAIN + raw if len(raw) <= MAX_PLAIN_ID_BYTES else _HASHED + hashlib.blake2b(raw).digest()


def write_record(product: Product) -> bytes:
    """Return the digest of a product, the length of each field in bytes, and the fields; surrogates survive."""
    texts = [text.encode("utf-8", "surrogatepass") for text in product]
    return b"".join((product_digest(product), _LENGTHS.pack(*map(len, texts)), *texts))


def read_record(record: bytes) -> tuple[Product, bytes]:
    """Return the product of a record, and its digest."""
    texts = []
    start = DIGEST_BYTES + _LENGTHS.size
    for length in _LENGTHS.unpack_from(record, DIGEST_BYTES):
        texts.append(str(record[start : start + length], "utf-8", "surrogatepass"))
        start += length
    return Product(*texts), record[:DIGEST_BYTES]
