"""The lock files keep their promises: complete, hashed, tested as shipped, and free of addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = (
    *("serve", "train", "test", "gpu", "optimum"),
    *("clients-makers", "clients-frameworks", "clients-litellm"),
)


def _entries(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return package -> its version and the sha256 of each of its files."""
    text = (ROOT / f"requirements/{name}.lock").read_text(encoding="utf-8")
    entries = re.findall(r"^([a-z0-9][\w.-]*)==(\S+)(.*(?:\n +--hash=.*)*)", text, re.MULTILINE)
    return {
        package: (version, re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))
        for package, version, rest in entries
    }


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_hashes(name: str) -> None:
    """Each package of a lock names at least one file by its sha256."""
    entries = _entries(name)

    assert len(entries) > 20
    assert [package for package, (_, hashes) in entries.items() if not hashes] == []


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_an_address(name: str) -> None:
    """A lock says what to install, never from where."""
    text = (ROOT / f"requirements/{name}.lock").read_text(encoding="utf-8")

    assert re.findall(r"https?:|index-url|find-links|@ |file:", text) == []


@pytest.mark.parametrize("name", ["serve", "train"])
def test_what_ships_is_what_is_tested(name: str) -> None:
    """Each version and file of the serving and training locks stands in the test lock too."""
    tested = _entries("test")

    assert {package: entry for package, entry in _entries(name).items() if tested.get(package) != entry} == {}


def test_a_gpu_gets_what_a_cpu_gets() -> None:
    """The GPU lock is the serving lock with the runtime's other build, in the same version, and what that needs."""
    cpu, gpu = _entries("serve"), _entries("gpu")
    more = {package for package in gpu.keys() - cpu.keys() if not package.startswith("nvidia-")}

    assert {package: entry for package, entry in cpu.items() if gpu.get(package) != entry}.keys() == {
        "onnxruntime"
    }
    assert more == {"onnxruntime-gpu"}
    assert gpu["onnxruntime-gpu"][0] == cpu["onnxruntime"][0]


def test_optimum_stands_apart() -> None:
    """Optimum is in its own lock with an older transformers, and the runtime is the one that serves."""
    alone, tested = _entries("optimum"), _entries("test")

    assert "optimum-onnx" not in tested
    assert alone["transformers"][0].startswith("4.")
    assert tested["transformers"][0].startswith("5.")
    assert alone["onnxruntime"] == tested["onnxruntime"]
    assert alone["onnx"] == tested["onnx"]


def test_the_serving_lock_has_no_training_library() -> None:
    """The serving environment installs without torch, transformers, optimum or a hub client."""
    assert set() == {"torch", "transformers", "optimum", "huggingface-hub", "sympy"} & set(_entries("serve"))


def test_the_version_is_the_same_everywhere() -> None:
    """The package, the image's label and the newest entry of the changelog carry one version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    image = re.search(r'image\.version="(.+?)"', (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    change = re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert image is not None
    assert change is not None
    assert (version, version) == (image[1], change[1])
