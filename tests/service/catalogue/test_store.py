"""Tests of service/catalogue/store.py: real processes that die, wait and fill the disk."""

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from bundle import PairEncoder, Product
from bundle.text import Packed
from service.cache.pair_keys import product_digest
from service.catalogue.catalogue import Catalogue
from service.catalogue.record import StoredProduct
from service.catalogue.store import Store
from service.errors import CatalogueError, Reason, Refused
from tests.service.support import ROOT
from tests.tiny import text_contract, tokenizer_json

MAX_BYTES = 32 << 20
BATCH = 40
WAIT_S = 60.0
NOBODY = 65534
ENCODER = PairEncoder(tokenizer_json(), text_contract(tokenizer_json()))
PRELUDE = """
import os, resource, signal, sys, time
from pathlib import Path
from tests.service.catalogue.test_store import *
catalogue = Catalogue(Path(sys.argv[1]), MAX_BYTES)
"""
LOAD = "for number in range(100_000):\n    catalogue.put(batch(number), [ENCODER])\n    print(number, flush=True)\n"


def batch(number: int) -> list[StoredProduct]:
    """The products of one transaction; all of its numbers stand in its texts."""
    return [
        StoredProduct(f"{number}/{index}", Product(title=f"mug {number}", text=f"{index} " * 50))
        for index in range(BATCH)
    ]


@contextmanager
def _child(path: Path, code: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own with the catalogue open, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_whole(catalogue: Catalogue, number: int) -> bool:
    """Whether a batch is there; it is whole if so, texts, digests and payloads."""
    expected = batch(number)
    found = catalogue.lookup([stored.id for stored in expected], ENCODER.text_key)
    if all(one is None for one in found):
        return False
    payloads = ENCODER.pack([stored.product for stored in expected])
    for stored, one, payload in zip(expected, found, payloads, strict=True):
        assert one is not None
        assert (one.product, one.digest) == (Packed(payload), product_digest(stored.product))
        assert catalogue.get(stored.id) == (stored.product, one.digest)
    return True


@pytest.mark.parametrize("batches", [1, 7, 20])
def test_a_writer_that_is_killed_leaves_whole_batches(tmp_path: Path, batches: int) -> None:
    """After kill -9 amid a load all that was acknowledged is there, at most one more batch, and none in part."""
    with _child(tmp_path, LOAD) as process:
        acknowledged = [int(_line(process)) for _ in range(batches)][-1]
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.communicate(timeout=WAIT_S)[0].split())])
    catalogue = Catalogue(tmp_path, MAX_BYTES)

    present = [number for number in range(acknowledged + 3) if is_whole(catalogue, number)]
    assert present in ([*range(acknowledged + 1)], [*range(acknowledged + 2)])
    assert catalogue.count() == len(present) * BATCH
    assert catalogue.put(batch(99_999), [ENCODER]).stored == BATCH
    catalogue.close()


def test_processes_read_while_one_writes(tmp_path: Path) -> None:
    """Two readers see batches appear whole, one after another, while a third process writes them."""
    read = (
        "seen = 0\n"
        "deadline = time.monotonic() + WAIT_S\n"
        "while seen < 30 and time.monotonic() < deadline:\n"
        "    if is_whole(catalogue, seen):\n"
        "        seen += 1\n"
        "print('seen', seen)\n"
    )
    with _child(tmp_path, LOAD) as writer:
        assert _line(writer) == "0"
        with _child(tmp_path, read) as first, _child(tmp_path, read) as second:
            assert [_line(first), _line(second)] == ["seen 30"] * 2
        assert writer.poll() is None


def test_writers_of_several_processes_take_turns(tmp_path: Path) -> None:
    """What several processes and threads write at the same time is all there."""
    write = "for number in range({0}, {0} + 8):\n    catalogue.put(batch(number), [ENCODER])\nprint('done')"
    catalogue = Catalogue(tmp_path, MAX_BYTES)
    with _child(tmp_path, write.format(0)) as first, _child(tmp_path, write.format(8)) as second:
        threads = [
            threading.Thread(target=catalogue.put, args=(batch(number), [ENCODER]))
            for number in range(16, 20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert [_line(first), _line(second)] == ["done", "done"]

    assert all(is_whole(catalogue, number) for number in range(20))
    assert catalogue.count() == 20 * BATCH
    catalogue.close()


def test_a_writer_that_hangs_does_not_hang_the_others(tmp_path: Path) -> None:
    """Whoever cannot write in time is refused, others read on, and the catalogue opens with a clear error."""
    catalogue = Catalogue(tmp_path, MAX_BYTES, wait_s=0.05)
    catalogue.put(batch(0), [ENCODER])
    with open(tmp_path / "writer.lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Refused) as caught:
            catalogue.put(batch(1), [ENCODER])
        assert caught.value.reason is Reason.CATALOGUE_FAILED
        assert is_whole(catalogue, 0)
    assert catalogue.put(batch(1), [ENCODER]).stored == BATCH
    catalogue.close()

    with open(tmp_path / "writer.lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CatalogueError, match=r"another writer did not end within 0\.05 s"):
            Catalogue(tmp_path, MAX_BYTES, wait_s=0.05)


def test_a_killed_reader_does_not_keep_old_pages(tmp_path: Path) -> None:
    """A process that dies amid a read holds no room: the same products, rewritten for long, still fit."""
    hold = "transaction = catalogue._store._environment.begin()\nprint('reading', flush=True)\ntime.sleep(WAIT_S)\n"
    catalogue = Catalogue(tmp_path, 1 << 20)
    catalogue.put(batch(0), [ENCODER])
    with _child(tmp_path, hold) as process:
        assert _line(process) == "reading"
    before = (tmp_path / "data.mdb").stat().st_size
    for number in range(200):
        catalogue.put([StoredProduct(0, Product(text=f"{number} " * 3_000))], [])

    assert (tmp_path / "data.mdb").stat().st_size < before + (2 << 20)
    catalogue.close()


def test_a_full_disk_is_a_refusal(tmp_path: Path) -> None:
    """When the file cannot grow, writes are refused and what was there stays, here and after a restart."""
    code = (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "stored = 0\n"
        "try:\n"
        "    while True:\n"
        "        catalogue.put(batch(stored), [ENCODER])\n"
        "        stored += 1\n"
        "except Refused as refusal:\n"
        "    whole = all(is_whole(catalogue, number) for number in range(stored))\n"
        "    print(refusal.reason.status, whole, stored)\n"
    )
    with _child(tmp_path, code) as process:
        status, whole, stored = _line(process).split()

    assert (status[0], whole) == ("5", "True")
    assert status != "500"
    catalogue = Catalogue(tmp_path, MAX_BYTES)
    assert int(stored) > 1
    assert all(is_whole(catalogue, number) for number in range(int(stored)))
    assert catalogue.put(batch(99_999), [ENCODER]).stored == BATCH
    catalogue.close()


def _refused(path: Path, match: str) -> None:
    """Opening says in one line what is wrong, and names the directory."""
    with pytest.raises(CatalogueError, match=match) as caught:
        Catalogue(path, MAX_BYTES)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file in the way stops the boot."""
    (tmp_path / "file").write_text("mine")

    _refused(tmp_path / "file", "cannot be opened")
    _refused(tmp_path / "file" / "below", "cannot be opened")


@pytest.mark.parametrize("content", [b"\0" * 8_192, b"mine" * 4_096, b"x"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A data file that is none stops the boot, and is left as it is."""
    (tmp_path / "data.mdb").write_bytes(content)

    _refused(tmp_path, "cannot be opened")
    assert (tmp_path / "data.mdb").read_bytes() == content


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    """A copy that broke off is noticed at the boot, not by a crash in the first request."""
    catalogue = Catalogue(tmp_path, MAX_BYTES)
    for number in range(5):
        catalogue.put(batch(number), [ENCODER])
    catalogue.close()
    os.truncate(tmp_path / "data.mdb", (tmp_path / "data.mdb").stat().st_size // 2)

    _refused(tmp_path, "damaged")


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """A foreign LMDB file stops the boot, and is not written to."""
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"theirs", b"1")

    _refused(tmp_path, "something else")
    with lmdb.open(str(tmp_path)) as environment, environment.begin() as transaction:
        assert list(transaction.cursor()) == [(b"theirs", b"1")]


def test_a_catalogue_of_another_format_is_refused(tmp_path: Path) -> None:
    """Records that this release cannot read stop the boot with what to do about it."""
    Store(tmp_path, MAX_BYTES, "shelfrank catalogue 0: title").close()

    _refused(tmp_path, "another release; load it anew")


def test_a_directory_that_is_not_ours_to_write_is_refused() -> None:
    """Without the right to write there is no catalogue."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalogue"
        Catalogue(path, MAX_BYTES).close()
        Path(name).chmod(0o755)
        for file in (path, *path.iterdir()):
            file.chmod(0o555)
        try:
            if is_root:
                os.seteuid(NOBODY)
            _refused(path, "cannot be opened")
        finally:
            if is_root:
                os.seteuid(0)
            path.chmod(0o755)


def test_a_catalogue_survives_a_restart_with_another_size(tmp_path: Path) -> None:
    """What was stored is there after opening it anew, larger or smaller; a smaller bound refuses, it loses nothing."""
    catalogue = Catalogue(tmp_path, MAX_BYTES)
    for number in range(30):
        catalogue.put(batch(number), [ENCODER])
    used = catalogue.size_bytes()
    catalogue.close()

    for max_bytes, fits in ((2 * MAX_BYTES, True), (used // 2, False), (2 * MAX_BYTES, True)):
        catalogue = Catalogue(tmp_path, max_bytes)
        assert all(is_whole(catalogue, number) for number in range(30))
        if not fits:
            with pytest.raises(Refused) as caught:
                catalogue.put(batch(99), [ENCODER])
            assert caught.value.reason is Reason.CATALOGUE_FULL
        catalogue.close()


def test_the_file_is_private(tmp_path: Path) -> None:
    """Nobody but the service's own user reads the products."""
    Catalogue(tmp_path / "new" / "one", MAX_BYTES).close()

    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "new" / "one").iterdir()} == {0}
