"""Opens the catalogue's database, and gives transactions on it.

Knows LMDB, its files and its errors; does not know what is kept in it.
Invariant: a write is there whole or not at all, whenever a process dies; every wait for another writer ends.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from service.errors import CatalogueError, Reason, Refused
from service.telemetry.logs import event

WRITE_WAIT_S: Final = 10.0
_POLL_S: Final = 0.005
_DATABASES: Final = (b"products", b"payloads", b"generations")
_FORMAT, _FILE_BYTES = b"format", b"file bytes"  # what stands in the unnamed database beside the named ones
_HEADROOM_BYTES: Final = 64 << 20
_MAX_READERS: Final = 512  # open transactions at a time, of all processes
_SPARE_TRANSACTIONS: Final = 4
_LMDB_0_9: Final = 0


class Store:
    """An LMDB environment of three databases; safe between threads and between processes, not across a fork.

    `max_bytes` bounds the pages in use. The map is a quarter larger, since LMDB never overwrites a page that
    somebody may still read: a full store can always delete. Processes that share a store need the same value.
    """

    def __init__(self, path: Path, max_bytes: int, data_format: str, *, wait_s: float = WRITE_WAIT_S) -> None:
        """Open or create it; CatalogueError says in one line why it cannot be used."""
        self._path = path
        self._wait_s = wait_s
        self.max_bytes = max_bytes
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(
                str(path),
                map_size=max_bytes + max_bytes // 4 + _HEADROOM_BYTES,
                max_dbs=len(_DATABASES),
                max_readers=_MAX_READERS,
                max_spare_txns=_SPARE_TRANSACTIONS,
                mode=0o600,
                readahead=False,  # lookups are spread over the file, their neighbours are not wanted
                lib_version=_LMDB_0_9,
            )
        except (OSError, lmdb.Error) as error:
            raise CatalogueError(f"the catalogue {path} cannot be opened: {_line(error)}") from error
        try:
            with self.write() as transaction:
                self._check(transaction, data_format)
                opened = [self._environment.open_db(name, txn=transaction) for name in _DATABASES]
        except Refused as error:
            self._environment.close()
            why = _line(error.__cause__ or error)
            raise CatalogueError(f"the catalogue {path} cannot be used: {why}") from error
        except CatalogueError:
            self._environment.close()
            raise
        self.products, self.payloads, self.generations = opened

    @contextmanager
    def read(self) -> Iterator["lmdb.Transaction[bytes]"]:
        """Give a transaction that sees one state of the store; keep it short, it keeps that state's pages."""
        with _as_refusals(), self._environment.begin() as transaction:
            yield transaction

    @property
    def state(self) -> int:
        """A number that every write raises, whichever process wrote: the id of a transaction begun now."""
        with _as_refusals():
            number: int = self._environment.info()["last_txnid"]
        return number

    @contextmanager
    def write(self) -> Iterator["lmdb.Transaction[bytes]"]:
        """Give a transaction that is on disk when the block ends, and undone if it raises.

        Refused with CATALOGUE_FULL if there is no room, with CATALOGUE_FAILED if another writer does not end.
        """
        with _as_refusals(), self._writer_lock():
            self._environment.reader_check()  # a reader that was killed would keep its pages for ever
            with self._environment.begin(write=True) as transaction:
                yield transaction
                size = self._data_file().stat().st_size
                transaction.put(
                    _FILE_BYTES, str(size).encode()
                )  # the file never shrinks, unless it is damaged

    def check_room(self, transaction: "lmdb.Transaction[bytes]") -> None:
        """Refuse what a transaction has written so far if it is more than `max_bytes` in all."""
        if self.used_bytes(transaction) > self.max_bytes:
            raise Refused(Reason.CATALOGUE_FULL)

    def used_bytes(self, transaction: "lmdb.Transaction[bytes]") -> int:
        """Return the bytes of all pages that hold something; those that are free for reuse do not count."""
        used = 0
        for database in (self.products, self.payloads, self.generations):
            stat = transaction.stat(database)
            used += stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
        return used

    def close(self) -> None:
        """Close it; what is asked of it afterwards is refused with CATALOGUE_FAILED."""
        self._environment.close()

    def _data_file(self) -> Path:
        return self._path / "data.mdb"

    def _check(self, transaction: "lmdb.Transaction[bytes]", data_format: str) -> None:
        """Mark a new environment as ours; CatalogueError if it is another's, of another format, or cut short."""
        known, file_bytes = transaction.get(_FORMAT), transaction.get(_FILE_BYTES)
        if known is None and not self._environment.stat()["entries"]:
            transaction.put(_FORMAT, data_format.encode())
        elif known is None:
            raise CatalogueError(f"the catalogue {self._path} is a database of something else")
        elif known != data_format.encode():
            raise CatalogueError(
                f"the catalogue {self._path} was written by another release; load it anew in an empty directory"
            )
        elif file_bytes is not None and self._data_file().stat().st_size < int(file_bytes):
            raise CatalogueError(f"the catalogue {self._path} is damaged: its file was cut short")

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        """Wait for this writer's turn among threads and processes; LMDB's own lock knows no deadline.

        A lock of this kind ends with its process, and one opened anew each time holds off threads as well.
        """
        descriptor = os.open(self._path / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + self._wait_s
            while not _locked(descriptor):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"another writer did not end within {self._wait_s:g} s")
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _as_refusals() -> Iterator[None]:
    """Turn what the database and the disk raise into refusals, and say in the log what it was."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise Refused(Reason.CATALOGUE_FULL) from error
    except (lmdb.Error, OSError) as error:
        event("catalogue_failed", logging.ERROR, kind=type(error).__name__, reason=_line(error))
        raise Refused(Reason.CATALOGUE_FAILED) from error


def _line(error: BaseException) -> str:
    """Return an error's message in one line; it names a file at most."""
    return " ".join(str(error).split())
