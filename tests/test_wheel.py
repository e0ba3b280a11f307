"""The wheel, built and installed: it serves outside the clone.

Knows hatchling and pip; does not know what is in the packages.
Invariant: the environment holds the wheel alone; what it depends on is lent from the environment of the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bundle import read_bundle
from service.native.build import WORDS
from service.settings import PREFIX
from tests.service.support import ask, listening

pytest.importorskip("hatchling", reason="hatchling is not installed; it is in the extra dev")

ROOT = Path(__file__).parent.parent
LARGEST_WHEEL = 60_000_000  # bytes; registries refuse 100 MB
START_S = 120.0  # the native libraries are compiled meanwhile
BODY = json.dumps({"query": "red shoes", "documents": ["coffee mug", "red running shoes"]})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)],
        check=True,
        timeout=120,
    )
    return folder


def _start(environment: Path, folder: Path, *arguments: str, lent: bool) -> "subprocess.Popen[str]":
    """Start `shelfrank` in a folder, with the libraries of this environment if they are lent."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((PREFIX, "COV", "PYTHON", "XDG_"))
    }
    libraries = [path for path in sys.path if path.endswith("-packages")]
    more = {"PYTHONPATH": os.pathsep.join(libraries)} if lent else {}
    return subprocess.Popen(
        [str(environment / "bin" / "shelfrank"), *arguments],
        cwd=folder,
        env=inherited | more | {"XDG_CACHE_HOME": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if not lent else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_wheel_holds_what_serves(wheel: Path) -> None:
    """The default bundle and the C sources are in it, no other bundle and nothing compiled, and it is not too large."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {path.name for path in (ROOT / "models" / "default").iterdir()} == {
        Path(name).name for name in names if name.startswith("bundle/models/")
    }
    assert {"service/native/encoder.c", "service/native/words.c", "shelfrank/__main__.py"} <= set(names)
    assert [name for name in names if name.endswith((".so", ".pyc"))] == []
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_help_needs_nothing_else(environment: Path, tmp_path: Path) -> None:
    """Installed without a single dependency, `shelfrank --help` tells the verbs."""
    popen = _start(environment, tmp_path, "--help", lent=False)
    out, err = popen.communicate(timeout=60)

    assert (0, "") == (popen.returncode, err)
    assert "serve" in out


def test_it_serves_outside_the_clone(environment: Path, tmp_path: Path) -> None:
    """In a folder without models the wheel's default bundle answers, by native libraries compiled into the user's cache."""
    popen = _start(environment, tmp_path, "serve", "--port", "0", "--admin-port", "0", lent=True)
    with listening(popen, START_S) as process:
        status, raw = ask(process.port, "POST", "/v1/rerank", BODY)
    loaded = process.lines[0]

    assert status == 200
    assert [1, 0] == [result["index"] for result in json.loads(raw)["results"]]
    assert loaded["bundle"] == read_bundle(ROOT / "models", "default").id
    if shutil.which("cc") is not None:
        assert loaded["no_words"] is None
        assert (tmp_path / "cache" / "shelfrank" / WORDS.path.name).is_file()
