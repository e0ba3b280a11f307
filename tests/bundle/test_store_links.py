"""A bundle is read through links, in every shape in which tools lay them: what was hashed is what is used."""

import os
import shutil
from pathlib import Path

import pytest

from bundle import read_bundle
from bundle.errors import HashMismatch, NotFound, NotPlain, Unreadable
from bundle.manifest import dump_manifest
from tests.tiny import NAME, tiny_files, tiny_manifest

FILES = tiny_files()
ALL_NAMES = sorted([*FILES, "manifest.json"])


@pytest.fixture
def root(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Give a root with a copy of the tiny bundle."""
    shutil.copytree(tiny_bundle / NAME, tmp_path / "root" / NAME)
    return tmp_path / "root"


def test_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    """Mounted volumes are often links."""
    (tmp_path / "link").symlink_to(root)

    assert read_bundle(tmp_path / "link", NAME).id == read_bundle(root, NAME).id


def test_the_directory_may_be_a_link(root: Path, tmp_path: Path) -> None:
    """`current -> v1` is the bundle of v1, beside it or elsewhere, and another one as soon as the link is."""
    shutil.copytree(root / NAME, tmp_path / "elsewhere")
    other = tiny_manifest(FILES).model_copy(update={"version": "2.0.0"})
    first = read_bundle(root, NAME)
    (tmp_path / "elsewhere" / "manifest.json").write_bytes(
        dump_manifest(other.model_copy(update={"files": first.manifest.files}))
    )
    (root / "current").symlink_to(NAME)
    before = read_bundle(root, "current")
    (root / "next").symlink_to(tmp_path / "elsewhere")
    (root / "next").replace(root / "current")

    assert before.id == first.id
    assert read_bundle(root, "current").manifest.version == "2.0.0"


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_any_file_may_be_a_link(root: Path, tmp_path: Path, name: str, link: object) -> None:
    """A file may lie elsewhere or have a second name; its bytes are checked like any others."""
    shutil.move(root / NAME / name, tmp_path / "target")
    link(root / NAME / name, tmp_path / "target")  # type: ignore[operator] # both take two paths
    bundle = read_bundle(root, NAME)
    (tmp_path / "target").write_bytes(b"x" * (tmp_path / "target").stat().st_size)

    assert dict(bundle.files) == FILES
    if name != "manifest.json":
        with pytest.raises(HashMismatch):
            read_bundle(root, NAME)


def test_the_snapshot_of_a_hub(root: Path, tmp_path: Path) -> None:
    """A hub's cache keeps each file under its hash and links to it from the folder of a revision."""
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate(ALL_NAMES):
        shutil.copyfile(root / NAME / name, blobs / f"{number:064x}")
        (snapshot / name).symlink_to(f"../../blobs/{number:064x}")

    assert read_bundle(snapshot.parent, snapshot.name).id == read_bundle(root, NAME).id


def _mounted(volume: Path, *moments: Path) -> None:
    """Lay out bundles as the moments of a volume that Kubernetes mounts, the first of them present."""
    volume.mkdir()
    for number, moment in enumerate(moments):
        shutil.copytree(moment, volume / f"..2026_11_27_{number}")
    (volume / "..data").symlink_to("..2026_11_27_0")
    for name in ALL_NAMES:
        (volume / name).symlink_to(f"..data/{name}")


def test_a_volume_of_kubernetes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted volume is read as it was at one moment, even if it is replaced while it is being read."""
    shutil.copytree(root / NAME, tmp_path / "later")
    (tmp_path / "later" / "card.md").write_bytes(b"?" * len(FILES["card.md"]))
    _mounted(root / "volume", root / NAME, tmp_path / "later")
    list_directory = os.listdir

    def replacing(descriptor: int) -> list[str]:
        (root / "volume" / "..next").symlink_to("..2026_11_27_1")
        (root / "volume" / "..next").replace(root / "volume" / "..data")
        return list_directory(descriptor)

    monkeypatch.setattr(os, "listdir", replacing)

    assert dict(read_bundle(root, "volume").files) == FILES

    monkeypatch.undo()
    with pytest.raises(HashMismatch):
        read_bundle(root, "volume")


@pytest.mark.parametrize(
    ("target", "error"),
    [("nowhere", Unreadable), ("card.md", Unreadable), (".", NotPlain), ("/dev/null", NotPlain)],
)
def test_links_that_lead_to_no_file(root: Path, target: str, error: type[Exception]) -> None:
    """A link to nothing, in a circle, to a directory or to a device is refused by its name."""
    (root / NAME / "card.md").unlink()
    (root / NAME / "card.md").symlink_to(target)

    with pytest.raises(error, match=r"'card\.md'"):
        read_bundle(root, NAME)


@pytest.mark.parametrize(
    ("target", "error"), [("nowhere", NotFound), ("tiny/card.md", NotPlain), ("circle", Unreadable)]
)
def test_a_directory_link_that_leads_nowhere(root: Path, target: str, error: type[Exception]) -> None:
    """A link in the bundle's place has to lead to a directory."""
    (root / "circle").symlink_to("circle")
    (root / "current").symlink_to(target)

    with pytest.raises(error, match="current"):
        read_bundle(root, "current")
