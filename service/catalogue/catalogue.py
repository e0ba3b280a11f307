"""Keeps products on disk, tokenized once, so that requests need to send their ids alone.

Knows products, payloads and under which text key each payload counts; does not know what is in a payload.
Invariant: a payload belongs to the texts of its product as they are now, whoever writes and whenever it dies.

Three databases: products (key of the id -> digest and texts), payloads (text key, key of the id -> digest and
payload) and generations (the text keys that payloads were made under). Payloads lie apart from the texts so that
what a ranking reads stays small enough for memory, and several models may have theirs at the same time.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb

from bundle import PairEncoder, Product
from bundle.text import Packed
from service.catalogue.recent import RecentLookups
from service.catalogue.record import (
    DIGEST_BYTES,
    FORMAT,
    ResolvedProduct,
    StoredProduct,
    product_key,
    read_record,
    write_record,
)
from service.catalogue.store import WRITE_WAIT_S, Store

_PACK_AT_ONCE: Final = 512
_DELETE_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class PutCounts:
    """How many products were written, and how many were there already as they are."""

    stored: int
    unchanged: int


class Catalogue:
    """The products of a shop in one directory; safe between threads and processes. Every call but `lookup_recent` blocks."""

    def __init__(self, path: Path, max_bytes: int, *, wait_s: float = WRITE_WAIT_S) -> None:
        """Open or create it; CatalogueError if the directory holds something else or cannot be used."""
        self._store = Store(path, max_bytes, FORMAT, wait_s=wait_s)
        self._recent = RecentLookups()

    def put(self, products: Iterable[StoredProduct], encoders: Sequence[PairEncoder]) -> PutCounts:
        """Store products, all or none, each with a payload of every encoder; the last of an id counts.

        A product that is there already, texts and payloads, costs a lookup. Refused with CATALOGUE_FULL if not
        all fit.
        """
        given = {product_key(stored.id): stored.product for stored in products}
        records = {key: write_record(product) for key, product in given.items()}
        changed = self._changed(records, encoders)
        payloads = {_generation(encoder.text_key): _packed(encoder, given, changed) for encoder in encoders}
        if changed:
            self._write(changed, records, payloads)
        return PutCounts(len(changed), len(given) - len(changed))

    def delete(self, ids: Iterable[str | int]) -> int:
        """Delete products and return how many there were; in steps, each of them whole."""
        keys = sorted({product_key(identifier) for identifier in ids})
        deleted = 0
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            with self._store.write() as transaction:
                generations = self._generations(transaction)
                for key in keys[start : start + _DELETE_AT_ONCE]:
                    deleted += transaction.delete(key, db=self._store.products)
                    for generation in generations:
                        transaction.delete(generation + key, db=self._store.payloads)
        return deleted

    def get(self, identifier: str | int) -> tuple[Product, bytes] | None:
        """Return a product's texts and their digest, None if it is unknown."""
        with self._store.read() as transaction:
            record = transaction.get(product_key(identifier), db=self._store.products)
        return None if record is None else read_record(record)

    def lookup(self, ids: Sequence[str | int], text_key: str) -> list[ResolvedProduct | None]:
        """Return for each id what `PairEncoder.encode` needs of its product, None if it is unknown.

        A product without a payload under this text key comes with its texts, which `encode` takes as well and
        tokenizes together with the query; `rebuild` sees to it that there are few.
        """
        generation = _generation(text_key)
        found: list[ResolvedProduct | None] = []
        with self._store.read() as transaction:
            for identifier in ids:
                key = product_key(identifier)
                value = transaction.get(generation + key, db=self._store.payloads)
                if value is not None:
                    found.append(ResolvedProduct(Packed(value[DIGEST_BYTES:]), value[:DIGEST_BYTES]))
                else:
                    record = transaction.get(key, db=self._store.products)
                    found.append(None if record is None else ResolvedProduct(*read_record(record)))
            state: int = transaction.id()
        self._recent.keep(state, text_key, ids, found)
        return found

    def lookup_recent(self, ids: Sequence[str | int], text_key: str) -> list[ResolvedProduct | None] | None:
        """Return what `lookup` would return, None if that is not in memory; the one call that does not block."""
        return self._recent.get(self._store.state, text_key, ids)

    def count(self) -> int:
        """Return the number of products."""
        with self._store.read() as transaction:
            entries: int = transaction.stat(self._store.products)["entries"]
        return entries

    def size_bytes(self) -> int:
        """Return the bytes in use, of which there may be `max_bytes`; the file may be a quarter larger."""
        with self._store.read() as transaction:
            return self._store.used_bytes(transaction)

    def rebuild(self, encoder: PairEncoder, *, step: int = _PACK_AT_ONCE) -> Iterator[int]:
        """Make the payloads that a encoder's text key lacks, `step` products at a time; yield how many of them.

        Stop it between any two steps, and start it again at any time: what is there is passed over. Nothing waits
        for the encoder; a product that was changed meanwhile keeps what its writer gave it.
        """
        generation = _generation(encoder.text_key)
        last: bytes | None = b""
        while last is not None:
            missing, last = self._missing(generation, last, step)
            payloads = encoder.pack([product for _, product, _ in missing])
            if missing:
                with self._store.write() as transaction:
                    transaction.put(generation, b"", db=self._store.generations)
                    for (key, _, digest), payload in zip(missing, payloads, strict=True):
                        record = transaction.get(key, db=self._store.products)
                        if record is not None and record[:DIGEST_BYTES] == digest:
                            transaction.put(generation + key, digest + payload, db=self._store.payloads)
                    self._store.check_room(transaction)
            yield len(missing)

    def prune(self, text_keys: Collection[str], *, step: int = _DELETE_AT_ONCE) -> Iterator[int]:
        """Delete the payloads of all text keys but these, `step` at a time; yield how many of them.

        Another process that still serves one of the others goes on with texts.
        """
        kept = {_generation(text_key) for text_key in text_keys}
        with self._store.read() as transaction:
            retired = [name for name in self._generations(transaction) if name not in kept]
        for generation in retired:
            deleted = step
            while deleted == step:
                with self._store.write() as transaction:
                    deleted = self._delete_payloads(transaction, generation, step)
                    if deleted < step:
                        transaction.delete(generation, db=self._store.generations)
                yield deleted

    def close(self) -> None:
        """Close it; what is asked of it afterwards is refused."""
        self._store.close()

    def _changed(self, records: Mapping[bytes, bytes], encoders: Sequence[PairEncoder]) -> list[bytes]:
        """Return the keys, in order, of what is not stored yet just so, with all its payloads."""
        generations = [_generation(encoder.text_key) for encoder in encoders]
        with self._store.read() as transaction:
            return [
                key
                for key, record in sorted(records.items())
                if transaction.get(key, db=self._store.products) != record
                or any(transaction.get(name + key, db=self._store.payloads) is None for name in generations)
            ]

    def _write(
        self,
        keys: Sequence[bytes],
        records: Mapping[bytes, bytes],
        payloads: Mapping[bytes, Sequence[bytes]],
    ) -> None:
        """Write products and payloads in one transaction; payloads that others made of the former texts go."""
        with self._store.write() as transaction:
            stale = [name for name in self._generations(transaction) if name not in payloads]
            for generation in payloads:
                transaction.put(generation, b"", db=self._store.generations)
            for place, key in enumerate(keys):
                record = records[key]
                transaction.put(key, record, db=self._store.products)
                for generation, made in payloads.items():
                    value = record[:DIGEST_BYTES] + made[place]
                    transaction.put(generation + key, value, db=self._store.payloads)
                for generation in stale:
                    transaction.delete(generation + key, db=self._store.payloads)
            self._store.check_room(transaction)

    def _missing(
        self, generation: bytes, last: bytes, step: int
    ) -> tuple[list[tuple[bytes, Product, bytes]], bytes | None]:
        """Look at `step` products after a key: those without a payload, and the last key unless it was the end."""
        missing = []
        seen = 0
        with self._store.read() as transaction:
            cursor = transaction.cursor(self._store.products)
            for key, record in cursor.iternext() if cursor.set_range(last + b"\0") else ():
                last = bytes(key)
                if transaction.get(generation + last, db=self._store.payloads) is None:
                    missing.append((last, *read_record(bytes(record))))
                seen += 1
                if seen == step:
                    return missing, last
        return missing, None

    def _generations(self, transaction: "lmdb.Transaction[bytes]") -> list[bytes]:
        return [bytes(name) for name, _ in transaction.cursor(self._store.generations)]

    def _delete_payloads(self, transaction: "lmdb.Transaction[bytes]", generation: bytes, most: int) -> int:
        """Delete payloads of a generation, `most` of them at most, and return how many."""
        cursor = transaction.cursor(self._store.payloads)
        deleted = 0
        found = cursor.set_range(generation)
        while found and deleted < most and bytes(cursor.key()).startswith(generation):
            found = cursor.delete()  # it moves to the next, if there is one
            deleted += 1
        return deleted


def _generation(text_key: str) -> bytes:
    """Return the eight bytes that stand before the keys of a text key's payloads."""
    return bytes.fromhex(text_key)


def _packed(encoder: PairEncoder, products: Mapping[bytes, Product], keys: Sequence[bytes]) -> list[bytes]:
    """Return the payloads of some products, made a few at a time so that memory stays bounded."""
    payloads: list[bytes] = []
    for start in range(0, len(keys), _PACK_AT_ONCE):
        payloads += encoder.pack([products[key] for key in keys[start : start + _PACK_AT_ONCE]])
    return payloads
