"""The folder of a finished stage: put in its place whole, and refused once it is not."""

import json
from pathlib import Path

import pytest

from training.errors import StageError
from training.folders import digests, key_of, part_of, read_json, swap, whole


def made(folder: Path, content: str) -> Path:
    """A finished stage's folder with one file."""
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text(content)
    told = {"key": content, "files": digests(folder)}
    (folder / "stage.json").write_text(json.dumps(told))
    return folder


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """After the swap only the new folder is there, and it is whole."""
    target = made(tmp_path / "data", "old")
    swap(made(part_of(target), "new"), target)

    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert key_of(whole(target)) == "new"


@pytest.mark.parametrize("change", ["changed", None])
def test_a_file_that_changed_or_is_gone_is_named(tmp_path: Path, change: str | None) -> None:
    """A folder whose file is not as the stage left it is refused in one line with the file's name."""
    file = made(tmp_path / "data", "old") / "deep" / "file"
    if change is None:
        file.unlink()
    else:
        file.write_text(change)

    with pytest.raises(StageError, match="deep/file is not as its stage left it: remove"):
        whole(tmp_path / "data")


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_broken_record_is_one_error(tmp_path: Path, content: str) -> None:
    """What is no JSON object is refused by the file's name."""
    (tmp_path / "result.json").write_text(content)

    with pytest.raises(StageError, match=r"result\.json: broken"):
        read_json(tmp_path / "result.json")


def test_no_folder_has_no_key(tmp_path: Path) -> None:
    """A stage that has not run has the empty key, which is never that of a recipe."""
    assert key_of(tmp_path / "data") == ""
