"""The folder of a finished stage: written beside its place, put there in one step, and checked when it is read.

Knows files and digests; does not know recipes or what a stage computes.
Invariant: a folder with a `stage.json` holds every file that its stage wrote, as it wrote it, or is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from training.errors import StageError


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that an earlier run wrote into a file; StageError if it is broken."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}: broken ({error}); remove its folder and run that again") from error
    if not isinstance(told, dict):
        raise StageError(f"{path}: broken (no object); remove its folder and run that again")
    return told


def whole(folder: Path) -> Path:
    """Return a finished stage's folder; StageError if a file in it is not as the stage left it."""
    told = folder / "stage.json"
    return _compared(folder, told.stat().st_mtime_ns)


@cache
def _compared(folder: Path, finished: int) -> Path:  # noqa: ARG001 - a stage that ran again is another one
    recorded = read_json(folder / "stage.json").get("files", {})  # older stages recorded none
    found = digests(folder)
    if broken := [name for name, digest in recorded.items() if found.get(name) != digest]:
        raise StageError(
            f"{folder / broken[0]} is not as its stage left it: remove {folder} and run the stage again"
        )
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder but stage.json."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "stage.json"]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(folder: Path) -> str:
    """Return the key of a finished stage's folder; empty if there is none."""
    told = folder / "stage.json"
    return str(read_json(told).get("key", "")) if told.is_file() else ""


def part_of(target: Path) -> Path:
    """Return where this process makes a folder before it takes its place."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def swap(new: Path, target: Path) -> None:
    """Put a finished folder in the place of `target`, which is kept aside until the new one is there."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
