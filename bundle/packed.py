"""PURE: the token ids of one product's fields as compact bytes, and back.

Knows the layout of a payload and what decides about the ids in it; does not tokenize, nor know who keeps payloads.
Invariant: what is unpacked is what was packed, under the contract it was packed for.

A payload is a row of little-endian unsigned numbers, of 16 bits where the contract allows it and else of 32:
first one head for each field of the contract (twice its number of ids, plus one if text of it was cut off),
then the ids of all fields in order.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Final

from tokenizers import __version__ as tokenizers_version

from bundle.manifest import TextContract

PAYLOAD_VERSION: Final = 1
_MAX_SHORT: Final = 0xFFFF

FieldIds = tuple[Sequence[int], bool]
"""The ids of one field, already cut to its limits, and whether text of it was cut off."""


class PayloadLayout:
    """Writes and reads the payloads of one text contract; safe to share between threads."""

    __slots__ = ("_code", "_fields", "number_bytes")

    def __init__(self, contract: TextContract) -> None:
        largest = max(contract.vocabulary - 1, *(2 * field.max_tokens + 1 for field in contract.fields))
        self.number_bytes, self._code = (2, "H") if largest <= _MAX_SHORT else (4, "I")
        self._fields = len(contract.fields)

    def pack(self, fields: Sequence[FieldIds]) -> bytes:
        """Return the payload of a product, given every field of the contract in order."""
        heads = (2 * len(ids) + cut for ids, cut in fields)
        numbers = [*heads, *chain.from_iterable(ids for ids, _ in fields)]
        return struct.pack(f"<{len(numbers)}{self._code}", *numbers)

    def read(self, payload: bytes) -> tuple[tuple[int, ...], bool]:
        """Return all ids of a product, and whether text of any field was cut off.

        ValueError if the bytes are no payload of this layout.
        """
        numbers = self._numbers(payload)
        marks, end = 0, self._fields
        for head in numbers[: self._fields]:
            marks |= head
            end += head >> 1
        self._check(numbers, end)
        return numbers[self._fields :], bool(marks & 1)

    def read_fields(self, payload: bytes) -> list[FieldIds]:
        """Return the same field by field."""
        numbers = self._numbers(payload)
        fields: list[FieldIds] = []
        start = self._fields
        for head in numbers[: self._fields]:
            end = start + (head >> 1)
            fields.append((numbers[start:end], bool(head & 1)))
            start = end
        self._check(numbers, start)
        return fields

    def count(self, payload: bytes) -> int:
        """Return the number of ids of all fields, without reading them."""
        return len(payload) // self.number_bytes - self._fields

    def _numbers(self, payload: bytes) -> tuple[int, ...]:
        count, rest = divmod(len(payload), self.number_bytes)
        return () if rest else struct.unpack(f"<{count}{self._code}", payload)

    def _check(self, numbers: Sequence[int], end: int) -> None:
        if end != len(numbers):
            raise ValueError(f"bytes that are no payload of this text contract: {len(numbers)} numbers")


def text_key(tokenizer_json: bytes, contract: TextContract) -> str:
    """Return 16 hex digits for all that decides about a payload; the limits of query and pair do not.

    The library is part of it: another release may tokenize otherwise, and rows would not be those of the texts.
    """
    fields = [(field.name, field.max_chars, field.max_tokens) for field in contract.fields]
    tokenizer = hashlib.sha256(tokenizer_json).hexdigest()
    parts = [PAYLOAD_VERSION, contract.version, contract.vocabulary, fields, tokenizer, tokenizers_version]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
