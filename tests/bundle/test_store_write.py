"""Writing a bundle is atomic: the whole verified bundle is in its place, or nothing has changed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import BundleError, read_bundle
from bundle.errors import AlreadyExists, HashMismatch, InvalidName, ManifestInvalid
from bundle.manifest import Manifest, parse_manifest
from bundle.store import write_bundle
from tests.tiny import NAME, tiny_files, tiny_manifest

REPOSITORY = Path(__file__).parents[2]
FILES = tiny_files()
MANIFEST = tiny_manifest(FILES)
ALL_NAMES = sorted([*FILES, "manifest.json"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a root that holds the tiny bundle."""
    write_bundle(tmp_path, NAME, MANIFEST, FILES)
    return tmp_path


def _snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def _other() -> Manifest:
    return MANIFEST.model_copy(update={"version": "2.0.0"})


@pytest.mark.parametrize("name", ["", "..", "../tiny", "/etc", "TINY", ".tiny"])
def test_name_outside_the_grammar(root: Path, name: str) -> None:
    """A bundle is only written where it could be read."""
    with pytest.raises(InvalidName):
        write_bundle(root, name, MANIFEST, FILES)


def test_write_fills_in_the_files(tmp_path: Path) -> None:
    """The caller hands over a draft and the bytes; sizes and hashes are not his to state."""
    path = write_bundle(tmp_path / "new" / "root", "other", MANIFEST, FILES)

    assert path == tmp_path / "new" / "root" / "other"
    assert sorted(_snapshot(path)) == ALL_NAMES
    assert parse_manifest((path / "manifest.json").read_bytes()).files.keys() == FILES.keys()


def test_written_files_can_be_read_by_another_user(tmp_path: Path) -> None:
    """The service usually runs as somebody else than the training did."""
    path = write_bundle(tmp_path, NAME, MANIFEST, FILES)

    assert path.stat().st_mode & 0o555 == 0o555
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in path.iterdir())


@pytest.mark.parametrize("name", ["manifest.json", "../up", "a/b", "", ".hidden", "a\0b", "x" * 64])
def test_write_refuses_bad_file_names(tmp_path: Path, name: str) -> None:
    """No file can be written outside its bundle, over the manifest or hidden."""
    with pytest.raises(ManifestInvalid):
        write_bundle(tmp_path, NAME, MANIFEST, {**FILES, name: b""})

    assert list(tmp_path.iterdir()) == []


def test_write_refuses_a_file_that_lacks(tmp_path: Path) -> None:
    """A manifest cannot rely on a file that is not handed over."""
    with pytest.raises(ManifestInvalid):
        write_bundle(tmp_path, NAME, MANIFEST, {"card.md": b""})


def test_identical_write_changes_nothing(root: Path) -> None:
    """Writing the same bundle again does not touch a file."""
    before = {path: path.stat().st_mtime_ns for path in (root / NAME).iterdir()}

    write_bundle(root, NAME, MANIFEST, FILES)

    assert {path: path.stat().st_mtime_ns for path in (root / NAME).iterdir()} == before


def test_different_bundle_is_not_overwritten(root: Path) -> None:
    """Without `replace` another bundle stays as it is."""
    before = _snapshot(root / NAME)

    with pytest.raises(AlreadyExists):
        write_bundle(root, NAME, _other(), FILES)

    assert _snapshot(root / NAME) == before
    assert [path.name for path in root.iterdir()] == [NAME]


def test_replace_swaps_the_whole_bundle(root: Path) -> None:
    """With `replace` the new bundle stands alone; nothing of the old one is left."""
    (root / NAME / "extra.txt").write_bytes(b"even from a damaged bundle")

    write_bundle(root, NAME, _other(), FILES, replace=True)

    assert read_bundle(root, NAME).manifest.version == "2.0.0"
    assert [path.name for path in root.iterdir()] == [NAME]


def test_failed_swap_puts_the_old_bundle_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new bundle cannot take its place, the old one is there again."""
    before, rename = _snapshot(root / NAME), Path.replace

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_new)
    with pytest.raises(OSError, match="the disk is gone"):
        write_bundle(root, NAME, _other(), FILES, replace=True)

    assert _snapshot(root / NAME) == before
    assert [path.name for path in root.iterdir()] == [NAME]


def test_race_for_a_free_name_has_one_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another writer takes the name meanwhile, his bundle stays."""
    rename = Path.replace

    def late_replace(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        write_bundle(tmp_path, NAME, _other(), FILES)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", late_replace)
    with pytest.raises(AlreadyExists, match="faster"):
        write_bundle(tmp_path, NAME, MANIFEST, FILES)

    assert read_bundle(tmp_path, NAME).manifest.version == "2.0.0"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_rename_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails for another reason is reported as what it is."""

    def failing_replace(_: Path, __: Path) -> Path:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Path, "replace", failing_replace)
    with pytest.raises(OSError, match="the disk is gone"):
        write_bundle(tmp_path, NAME, MANIFEST, FILES)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", range(len(FILES) + 2))
def test_failure_at_any_sync_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Whichever sync fails before the rename, neither a bundle nor a leftover is there."""
    calls = iter(range(100))

    def failing_sync(_: int) -> None:
        if next(calls) == call:
            raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", failing_sync)
    with pytest.raises(OSError, match="no space left"):
        write_bundle(tmp_path, NAME, MANIFEST, FILES)

    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_garbles_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read-back before the rename sees bytes that did not arrive."""
    sync = os.fsync

    def garbling_sync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == len(FILES["card.md"]):
            os.pwrite(descriptor, b"?", 0)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", garbling_sync)
    with pytest.raises(HashMismatch):
        write_bundle(tmp_path, NAME, MANIFEST, FILES)

    assert list(tmp_path.iterdir()) == []


WRITER = """
import os, sys, time
from pathlib import Path
from bundle.store import write_bundle
from tests.tiny import NAME, tiny_files, tiny_manifest
files = tiny_files()
sync, calls = os.fsync, iter(range(100))
def stalling_sync(descriptor):
    sync(descriptor)
    if next(calls) == int(sys.argv[2]):
        print("stalled", flush=True)
        time.sleep(60)
os.fsync = stalling_sync
write_bundle(Path(sys.argv[1]), NAME, tiny_manifest(files), files)
"""


@pytest.mark.parametrize("call", [0, 2, len(FILES) + 1])
def test_killed_writer_leaves_no_bundle_and_blocks_nobody(tmp_path: Path, call: int) -> None:
    """A writer killed before the rename leaves no loadable name, and the next writer succeeds."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path, str(call)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "stalled\n"
        writer.send_signal(signal.SIGKILL)
    left = [path.name for path in tmp_path.iterdir()]

    assert len(left) == 1
    assert left[0].startswith(f".{NAME}.")
    for name in (NAME, left[0]):
        with pytest.raises(BundleError):
            read_bundle(tmp_path, name)
    write_bundle(tmp_path, NAME, MANIFEST, FILES)
    assert read_bundle(tmp_path, NAME).manifest.version == "1.0.0"
