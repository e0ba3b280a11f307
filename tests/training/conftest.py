"""What the training tests share: no hub, one torch thread, and a student made once.

Knows the environment and when the student is wanted; does not import torch before that.
Invariant: a test never waits for a hub that cannot be reached, nor sees what another test's stages wrote.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of the hub's client, which reads it once
os.environ.setdefault("OMP_NUM_THREADS", "1")

REASON = "torch is not installed; see requirements/install"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run folder with the stages data, teacher, distil and export; nobody may write to it."""
    support = pytest.importorskip("tests.training.support", reason=REASON)
    return Path(support.make_exported(tmp_path_factory.mktemp("run")))


@pytest.fixture
def context(exported: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a stage's context, `context("export", "export.parity=1e-3")`, in a copy of that run."""
    support = pytest.importorskip("tests.training.support", reason=REASON)
    root = support.copy_run(exported, tmp_path / "run")
    return lambda stage, *overrides: support.make_context(root, stage, *overrides)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line and hold it to one line of error and code 2; returns the line."""
    command = pytest.importorskip("training.__main__", reason=REASON)

    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = command.main(list(arguments))
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert code == 2
        assert len(error) == 1
        return error[0]

    return run
