"""Reads bundles from and writes bundles to a root directory, refusing anything that is not as promised.

Knows files, sizes and hashes; does not know what a graph or a tokenizer means.
Invariant: the bytes that are returned are the bytes that were hashed, each read from disk once; so links may be
followed, wherever they lead: to the blobs of a hub's cache, to the version of the day.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bundle.errors import (
    AlreadyExists,
    BundleError,
    FileSetMismatch,
    HashMismatch,
    InvalidName,
    ManifestInvalid,
    NotFound,
    NotPlain,
    SizeMismatch,
    Unreadable,
)
from bundle.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    dump_manifest,
    is_name,
    parse_manifest,
)

SHIPPED: Final = (
    Path(__file__).parent / "models"
)  # bundles of the installed package; a clone has them in models/
_READ = os.O_RDONLY | os.O_CLOEXEC
_KUBERNETES = "..data"  # in a mounted volume: a link to the folder of now, which is replaced as a whole
_NAMED = 3  # files in a message


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its manifest, the bytes of its files, and the short id of both.

    `id` is the first 12 hex digits of the manifest's sha256, so it stands for every byte of the bundle.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    id: str


def read_bundle(root: Path, name: str) -> Bundle:
    """Return the bundle in `root/name`, or raise the BundleError of the first step that fails."""
    if not is_name(name):
        raise InvalidName("bundle name is outside the grammar: one lower-case path component, no '..'")
    return _read_directory(root / name)


def write_bundle(
    root: Path, name: str, manifest: Manifest, files: Mapping[str, bytes], *, replace: bool = False
) -> Path:
    """Write a bundle to `root/name` atomically and return that path; `manifest.files` is filled in.

    The bundle is written beside its place, synced, read back with every check and then renamed.
    An identical bundle in place is left alone; another one raises AlreadyExists unless `replace`.
    Between the two renames of a replacement the name is free for an instant: a reader then gets NotFound.
    A killed writer leaves at most a directory whose name starts with a dot, which no reader accepts.
    """
    if not is_name(name):
        raise InvalidName("bundle name is outside the grammar: one lower-case path component, no '..'")
    raw = dump_manifest(_with_files(manifest, files))
    target = root / name
    if _holds(target, raw):
        return target
    if os.path.lexists(target) and not replace:
        raise AlreadyExists(f"another bundle is at {name}; pass replace=True to replace it")
    root.mkdir(parents=True, exist_ok=True)
    with _scratch_directory(root, name) as scratch:
        fresh = scratch / "new"
        _write_directory(fresh, {**files, MANIFEST_FILE: raw})
        _read_directory(fresh)
        _move_into_place(fresh, target, old=scratch / "old")
        _sync_directory(root)
    return target


def _with_files(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    entries = {name: FileEntry(sha256=_sha256(data), size=len(data)) for name, data in files.items()}
    complete = {**{name: getattr(manifest, name) for name in Manifest.model_fields}, "files": entries}
    try:
        return Manifest.model_validate(complete)
    except ValueError as error:
        raise ManifestInvalid(
            "the files do not fit the manifest: a bad name, or one it relies on lacks"
        ) from error


def _holds(target: Path, raw_manifest: bytes) -> bool:
    with suppress(BundleError):
        return dump_manifest(_read_directory(target).manifest) == raw_manifest
    return False


@contextmanager
def _scratch_directory(root: Path, name: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir(mode=0o755)
    for name, data in files.items():
        with (directory / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _sync_directory(directory)


def _move_into_place(fresh: Path, target: Path, *, old: Path) -> None:
    replaced = os.path.lexists(target)
    if replaced:
        target.replace(old)
    try:
        fresh.replace(target)
    except OSError as error:
        if replaced:
            old.replace(target)
            raise
        if os.path.lexists(target):
            raise AlreadyExists(f"another writer was faster at {target.name}") from error
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_directory(directory: Path) -> Bundle:
    with _opened_directory(directory) as descriptor:
        present = set(os.listdir(descriptor))  # noqa: PTH208 - the open directory, not whatever its path now names
        if MANIFEST_FILE not in present:
            raise NotFound(f"{directory.absolute()} holds no {MANIFEST_FILE}")
        for name in sorted(present):
            _refuse_special(os.stat(name, dir_fd=descriptor), name)
        raw = _read_file(descriptor, MANIFEST_FILE, limit=MAX_MANIFEST_BYTES)
        manifest = parse_manifest(raw)
        _compare_file_sets(present - {MANIFEST_FILE}, set(manifest.files))
        files = {name: _read_entry(descriptor, name, entry) for name, entry in manifest.files.items()}
    return Bundle(manifest=manifest, files=MappingProxyType(files), id=_sha256(raw)[:12])


@contextmanager
def _opened_directory(directory: Path) -> Iterator[int]:
    """Open the directory once, and turn what the operating system refuses into a BundleError."""
    try:
        descriptor = _open_directory(directory)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotFound(f"there is no bundle {directory.name} in {directory.parent.absolute()}") from error
        if error.errno == errno.ENOTDIR:
            raise NotPlain(f"{directory.absolute()} is no directory") from error
        raise Unreadable(f"{directory.absolute()} cannot be opened: {error.strerror}") from error
    try:
        yield descriptor
    except OSError as error:
        raise Unreadable(
            f"{error.filename!a} in {directory.absolute()} cannot be read: {error.strerror}"
        ) from error
    finally:
        os.close(descriptor)


def _open_directory(directory: Path) -> int:
    """Open what holds the files; where Kubernetes keeps them, all are of one moment however soon they are replaced."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.open(directory / _KUBERNETES, _READ | os.O_DIRECTORY)
    return os.open(directory, _READ | os.O_DIRECTORY)


def _refuse_special(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotPlain(f"{name!a} is no plain file")


def _compare_file_sets(present: set[str], promised: set[str]) -> None:
    if present != promised:
        told = {"missing": promised - present, "not in the manifest": present - promised}
        raise FileSetMismatch("; ".join(f"{what}: {_some(names)}" for what, names in told.items() if names))


def _some(names: set[str]) -> str:
    """Return a few names, as ASCII whatever they hold, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"{name!a}" for name in sorted(names)[:_NAMED]) + more


def _read_entry(directory: int, name: str, entry: FileEntry) -> bytes:
    data = _read_file(directory, name, limit=entry.size)
    if len(data) != entry.size:
        raise SizeMismatch(f"{name} does not have the {entry.size} bytes that the manifest says")
    if _sha256(data) != entry.sha256:
        raise HashMismatch(f"{name} is not what the manifest says")
    return data


def _read_file(directory: int, name: str, *, limit: int) -> bytes:
    """Read one plain file, at most one byte more than `limit`; the caller sees the surplus."""
    descriptor = os.open(name, _READ | os.O_NONBLOCK, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _refuse_special(status, name)
        return file.read(min(limit, status.st_size) + 1)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
