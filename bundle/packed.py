"""PURE: the token ids of one product's fields as compact bytes, and back.

Knows the layout of a payload and what decides about the ids in it; does not tokenize, nor know who keeps payloads.
Invariant: what is unpacked is what was packed, under the contract it was packed for.

A payload is a row of little-endian unsigned numbers, of 16 bits where the contract allows it and else of 32:
first one head for each field of the contract (twice its number of ids, plus one if text of it was cut off),
then the ids of all fields in order. Under a contract with a separator the fields are as they follow others, and one more
says how they begin: which field comes first, then its ids without a separator.
"""

import hashlib
import json
from collections.abc import Sequence
from struct import Struct
from typing import Final

import numpy as np
from tokenizers import __version__ as tokenizers_version

from bundle.manifest import TextContract
from bundle.words import TOKEN_BYTES

PAYLOAD_VERSION: Final = 1
_MAX_SHORT: Final = 0xFFFF

FieldIds = tuple[bytes, bool]
"""The ids of one field as `pack_ids` writes them, already cut to its limits, and whether text of it was cut off."""


class PayloadLayout:
    """Writes and reads the payloads of one text contract; safe to share between threads."""

    __slots__ = ("_fields", "_heads", "_type", "number_bytes")

    def __init__(self, contract: TextContract) -> None:
        extra = contract.separator is not None
        most = max(field.max_tokens for field in contract.fields) + extra
        largest = max(contract.vocabulary - 1, 2 * most + 1)
        is_short = largest <= _MAX_SHORT
        self._type: np.dtype[np.unsignedinteger] = np.dtype("<u2" if is_short else "<u4")
        self.number_bytes = self._type.itemsize
        self._fields = len(contract.fields) + extra
        self._heads = Struct(f"<{self._fields}{'H' if is_short else 'I'}")

    def pack(self, fields: Sequence[FieldIds]) -> bytes:
        """Return the payload of a product, given every field of the contract in order."""
        heads = (2 * (len(ids) // TOKEN_BYTES) + cut for ids, cut in fields)
        ids = np.frombuffer(b"".join(ids for ids, _ in fields), np.int32)
        return self._heads.pack(*heads) + ids.astype(self._type).tobytes()

    def read(self, payload: bytes) -> FieldIds:
        """Return all ids of a product, and whether text of any field was cut off.

        ValueError if the bytes are no payload of this layout.
        """
        heads, ids = self._parts(payload)
        marks = 0
        for head in heads:
            marks |= head
        return ids, bool(marks & 1)

    def read_fields(self, payload: bytes) -> list[FieldIds]:
        """Return the same field by field."""
        heads, ids = self._parts(payload)
        fields: list[FieldIds] = []
        start = 0
        for head in heads:
            end = start + (head >> 1) * TOKEN_BYTES
            fields.append((ids[start:end], bool(head & 1)))
            start = end
        return fields

    def count(self, payload: bytes) -> int:
        """Return the number of ids of all fields, without reading them."""
        return len(payload) // self.number_bytes - self._fields

    def _parts(self, payload: bytes) -> tuple[tuple[int, ...], bytes]:
        """Return the heads, and the ids of all fields."""
        if len(payload) >= self._heads.size:
            heads = self._heads.unpack_from(payload)
            if self._heads.size + sum(head >> 1 for head in heads) * self.number_bytes == len(payload):
                numbers = np.frombuffer(payload, self._type, offset=self._heads.size)
                return heads, numbers.astype(np.int32).tobytes()
        raise ValueError(f"bytes that are no payload of this text contract: {len(payload)} of them")


def text_key(tokenizer_json: bytes, contract: TextContract) -> str:
    """Return 16 hex digits for all that decides about a payload; the limits of query and pair do not.

    The library is part of it: another release may tokenize otherwise, and rows would not be those of the texts.
    """
    fields = [(field.name, field.max_chars, field.max_tokens) for field in contract.fields]
    tokenizer = hashlib.sha256(tokenizer_json).hexdigest()
    parts = [PAYLOAD_VERSION, contract.version, contract.vocabulary, fields, tokenizer, tokenizers_version]
    if contract.separator is not None:
        parts.append(contract.separator)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
