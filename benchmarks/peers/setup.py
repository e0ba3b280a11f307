"""Sets up each peer in an environment of its own, and makes the models that they serve.

Knows pip, the runners that make graphs, and what was made before; does not know what is measured.
Invariant: an environment or a model folder is marked complete only when all of it is there, and is not made twice.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.lists import Ask, Lists, as_pairs, calibration_pairs
from benchmarks.peers.process import RUNNERS
from benchmarks.peers.roster import ENVIRONMENTS, EXPORTER
from benchmarks.shared.target import REPOSITORY
from bundle import Bundle
from training.export.checkpoint import write_checkpoint, write_tokenizer

CALIBRATION_PAIRS: Final = 128
CALIBRATION_SEED: Final = 7
_DONE: Final = "complete.json"
_INSTALL_TIMEOUT_S: Final = 1_800
_MAKE_TIMEOUT_S: Final = 600
_RECIPE: Final = (RUNNERS / "make_graphs.py", REPOSITORY / "training/export/checkpoint.py")


class SetupError(Exception):
    """Something could not be installed or made; the message is the last line of what was said."""


def set_up(name: str, root: Path) -> None:
    """Make the environment unless it is there with the same packages; SetupError with pip's reason."""
    folder, steps = root / name, ENVIRONMENTS[name]
    wanted = json.dumps(steps)
    if _is_done(folder, wanted):
        return
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)], _INSTALL_TIMEOUT_S)
    for packages in steps:
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
        _call([*pip, "--disable-pip-version-check"], _INSTALL_TIMEOUT_S)
    (folder / _DONE).write_text(wanted, encoding="utf-8")


def is_set_up(name: str, root: Path) -> bool:
    """Say whether the environment is there with the packages of the roster."""
    return _is_done(root / name, json.dumps(ENVIRONMENTS[name]))


def versions(name: str, root: Path) -> dict[str, str]:
    """Return every package of an environment with its version."""
    pip = [str(root / name / "bin" / "python"), "-m", "pip", "list", "--format=json"]
    listed = _call([*pip, "--disable-pip-version-check"], _MAKE_TIMEOUT_S)
    return {each["name"]: each["version"] for each in json.loads(listed)}


def make_models(
    bundle: Bundle, lists: Lists, cache: Path, environments: Path, checkpoint: Path | None
) -> Path:
    """Return the folder with the checkpoint and the graphs made of it; `checkpoint` replaces the bundle's weights."""
    recipe = b"".join(path.read_bytes() for path in _RECIPE)
    weights = b"" if checkpoint is None else (checkpoint / "model.safetensors").read_bytes()
    key = hashlib.sha256(recipe + weights + bundle.id.encode()).hexdigest()[:12]
    folder = (cache / f"models-{key}").resolve()
    if _is_done(folder, key):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    fp32, int8, pairs = folder / "fp32", folder / "int8", folder / "pairs.json"
    if checkpoint is None:
        write_checkpoint(bundle, fp32)
    else:
        shutil.copytree(checkpoint, fp32)
        write_tokenizer(bundle, fp32)
    pairs.write_text(
        json.dumps(calibration_pairs(lists, CALIBRATION_PAIRS, CALIBRATION_SEED)), encoding="utf-8"
    )
    _export(environments, "make_graphs.py", fp32, int8, pairs)
    for each in (fp32, int8):  # exporters write the tokenizer anew, each in its way
        write_tokenizer(bundle, each)
    (folder / _DONE).write_text(key, encoding="utf-8")
    return folder


def reference_logits(models: Path, environments: Path, asks: Sequence[Ask]) -> list[list[float]]:
    """Return the logits of lists by torch in fp32, computed once for the same lists."""
    wanted = json.dumps(as_pairs(asks))
    name = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    lists, result = models / f"lists-{name}.json", models / f"reference-{name}.json"
    if not result.exists():
        lists.write_text(wanted, encoding="utf-8")
        _export(environments, "reference.py", models / "fp32", lists, result)
    logits: list[list[float]] = json.loads(result.read_text(encoding="utf-8"))
    return logits


def _export(environments: Path, script: str, *arguments: Path) -> None:
    python = str(environments / EXPORTER / "bin" / "python")
    _call([python, str(RUNNERS / script), *map(str, arguments)], _MAKE_TIMEOUT_S)


def _is_done(folder: Path, wanted: str) -> bool:
    done = folder / _DONE
    return done.exists() and done.read_text(encoding="utf-8") == wanted


def _call(command: Sequence[str], timeout_s: float) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(str(error)[:300]) from error
    if done.returncode:
        raise SetupError((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300])
    return done.stdout
