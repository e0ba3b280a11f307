"""Reading refuses everything that is not as the manifest says."""

import errno
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from bundle import read_bundle
from bundle.errors import (
    FileSetMismatch,
    HashMismatch,
    InvalidName,
    ManifestInvalid,
    NotFound,
    NotPlain,
    SizeMismatch,
    Unreadable,
)
from bundle.manifest import FileEntry, dump_manifest
from tests.tiny import NAME, tiny_files, tiny_manifest

FILES = tiny_files()
MANIFEST = tiny_manifest(FILES)
ALL_NAMES = sorted([*FILES, "manifest.json"])


@pytest.fixture
def root(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Give a root with a copy of the tiny bundle that a test may damage."""
    shutil.copytree(tiny_bundle / NAME, tmp_path / "root" / NAME)
    return tmp_path / "root"


def test_read_returns_the_written_bytes(root: Path) -> None:
    """A bundle holds the manifest, every other file's bytes and an id made of the manifest's hash."""
    bundle = read_bundle(root, NAME)

    assert dict(bundle.files) == FILES
    assert bundle.manifest.files["card.md"].size == len(FILES["card.md"])
    assert len(bundle.id) == 12
    with pytest.raises(TypeError):
        bundle.files["card.md"] = b""  # type: ignore[index] # the point of the test


@pytest.mark.parametrize(
    "name", ["", "..", "../tiny", "tiny/../tiny", "/etc", "tiny\0", "TINY", ".tiny", "a..b", "tiny/"]
)
def test_name_outside_the_grammar(root: Path, name: str) -> None:
    """A name that could walk the file system is refused before it is used."""
    with pytest.raises(InvalidName):
        read_bundle(root, name)


def test_absent_bundle(root: Path) -> None:
    """No directory, or one without a manifest, is no bundle; the message says where was searched."""
    (root / "empty").mkdir()

    with pytest.raises(NotFound, match=f"no bundle absent in {root}$"):
        read_bundle(root, "absent")
    with pytest.raises(NotFound, match=f"{root}/empty holds no manifest.json"):
        read_bundle(root, "empty")


def test_bundle_that_is_a_file(root: Path) -> None:
    """A plain file in the bundle's place is refused."""
    (root / "file").write_bytes(b"")

    with pytest.raises(NotPlain):
        read_bundle(root, "file")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_thing_that_is_no_plain_file(root: Path, make: object) -> None:
    """A pipe or a directory in a file's place is refused without waiting for it."""
    (root / NAME / "card.md").unlink()
    make(root / NAME / "card.md")  # type: ignore[operator] # both take a path

    with pytest.raises(NotPlain):
        read_bundle(root, NAME)


@pytest.mark.parametrize("name", list(FILES))
def test_missing_file(root: Path, name: str) -> None:
    """Every file of the manifest has to be there, and the message names one that is not."""
    (root / NAME / name).unlink()

    with pytest.raises(FileSetMismatch, match=f"^missing: '{name}'$"):
        read_bundle(root, NAME)


@pytest.mark.parametrize("name", ["extra.txt", ".DS_Store", "model.onnx.data", "MANIFEST.JSON", b"\xff"])
def test_extra_file(root: Path, name: str | bytes) -> None:
    """Nothing else may be there, whatever its name, and the message has it in ASCII."""
    (root / NAME / os.fsdecode(name)).write_bytes(b"")

    with pytest.raises(FileSetMismatch) as caught:
        read_bundle(root, NAME)
    assert str(caught.value) == f"not in the manifest: {os.fsdecode(name)!a}"


def test_many_extra_files(root: Path) -> None:
    """Of many files the message names a few and counts the rest."""
    for number in range(9):
        (root / NAME / f"extra-{number}").write_bytes(b"")

    with pytest.raises(FileSetMismatch, match=r"'extra-0', 'extra-1', 'extra-2' and 6 more$"):
        read_bundle(root, NAME)


@pytest.mark.parametrize("name", [NAME, *ALL_NAMES])
def test_file_that_may_not_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What the operating system refuses is a bundle error, not an OSError."""
    opened = os.open

    def refusing_open(path: str | Path, flags: int, *, dir_fd: int | None = None) -> int:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing_open)
    with pytest.raises(Unreadable, match="Permission denied"):
        read_bundle(root, NAME)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_any_flipped_bit_is_refused(root: Path, name: str) -> None:
    """Sixty random single-bit flips a file: none loads, for none does a runtime have to notice."""
    path, good, rng = root / NAME / name, (root / NAME / name).read_bytes(), random.Random(name)  # noqa: S311 - damage, not secrets
    good_id = read_bundle(root, NAME).id
    for _ in range(60):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        if name == "manifest.json":
            # A flip inside a free text or a number gives another valid manifest, which has another id.
            with suppress(ManifestInvalid, FileSetMismatch, SizeMismatch, HashMismatch):
                assert read_bundle(root, NAME).id != good_id
        else:
            with pytest.raises(HashMismatch):
                read_bundle(root, NAME)
    path.write_bytes(good)

    assert read_bundle(root, NAME).id == good_id


@pytest.mark.parametrize("name", ALL_NAMES)
def test_any_truncation_is_refused(root: Path, name: str) -> None:
    """A file cut anywhere, or with a byte added, is refused."""
    path, good, rng = root / NAME / name, (root / NAME / name).read_bytes(), random.Random(name)  # noqa: S311 - damage, not secrets
    expected = ManifestInvalid if name == "manifest.json" else SizeMismatch
    for length in {0, 1, len(good) // 2, len(good) - 1, *rng.sample(range(len(good)), 20)}:
        path.write_bytes(good[:length])
        with pytest.raises(expected):
            read_bundle(root, NAME)
    path.write_bytes(good + b"\n")
    with pytest.raises(expected):
        read_bundle(root, NAME)


def test_changed_manifest_over_the_same_files(root: Path) -> None:
    """A changed fact is another bundle with another id: the id stands for all of it."""
    before = read_bundle(root, NAME)
    (root / NAME / "manifest.json").write_bytes(
        dump_manifest(before.manifest.model_copy(update={"default_precision": "fp32", "version": "1.0.1"}))
    )

    assert read_bundle(root, NAME).id != before.id


def test_changed_hash_in_the_manifest(root: Path) -> None:
    """A manifest that says something else about a file than the file says is refused."""
    before = read_bundle(root, NAME).manifest
    entries = {**before.files, "card.md": FileEntry(sha256="0" * 64, size=len(FILES["card.md"]))}
    (root / NAME / "manifest.json").write_bytes(dump_manifest(before.model_copy(update={"files": entries})))

    with pytest.raises(HashMismatch):
        read_bundle(root, NAME)


def test_huge_size_in_the_manifest_costs_no_memory(root: Path) -> None:
    """A promised terabyte is compared with the file, not allocated."""
    before = read_bundle(root, NAME).manifest
    entry = before.files["card.md"].model_copy(update={"size": (1 << 40) - 1})
    changed = before.model_copy(update={"files": {**before.files, "card.md": entry}})
    (root / NAME / "manifest.json").write_bytes(dump_manifest(changed))

    with pytest.raises(SizeMismatch):
        read_bundle(root, NAME)
