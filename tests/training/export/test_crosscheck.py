"""The cross-check of two exporters: agreement is printed, disagreement is an error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from tests.training.support import TINY
from training import __main__
from training.export import crosscheck, export

Make = Callable[..., Any]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Stand in for Optimum, which is not installed here: torch's plain graph; `head` scales its last weights."""
    told = {"head": 1.0}

    def by_torch(model: Any, opset: int) -> onnx.ModelProto:
        model.classifier.weight.data.mul_(told["head"])
        return export.to_onnx(export.PlainGraph(model).eval(), opset)

    monkeypatch.setattr(crosscheck, "export_by_optimum", by_torch)
    return told


def run(folder: Path) -> int:
    """The exit code of the command over a run's folder."""
    return __main__.main(["crosscheck", "--recipe", str(TINY), "--set", f"run.dir={folder}"])


@pytest.mark.usefixtures("plain")
def test_two_exports_of_one_student_agree(context: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The largest differences on golden rows and on random ids are printed as JSON; the exit code is 0."""
    root = context("export").out.parent
    code = run(root)
    told = json.loads(capsys.readouterr().out)

    assert code == 0
    assert told["golden_rows"] <= told["limit"] == 1e-4
    assert told["random_ids"] <= told["limit"]


def test_another_student_is_found_out(
    context: Make, plain: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Negative control: one scaled weight, and the command fails with one line."""
    root = context("export").out.parent
    plain["head"] = 1.01
    code = run(root)

    assert code == 2
    assert "from Optimum's graph, allowed is 1e-04" in capsys.readouterr().err


def test_a_run_without_a_graph_is_told(context: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the export stage has run there is nothing to compare."""
    root = context("distil").out.parent
    shutil.rmtree(root / "export")

    assert run(root) == 2
    assert "stage export has not run" in capsys.readouterr().err
