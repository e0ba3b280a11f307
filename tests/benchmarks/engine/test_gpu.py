"""Tests of benchmarks/engine/gpu.py and gpu_run.py: all but the engines' speed, which takes a GPU."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.engine import gpu
from benchmarks.engine.gpu import NO_GPU, find_gpu, format_table, main
from benchmarks.engine.gpu_run import figures_of, make_lists, measure, read_samples, shelfrank, watched
from tests.tiny import build_tiny


def _row(engine: str, pairs_per_s: float, **changes: object) -> dict[str, object]:
    row = {"model": "bert-base", "engine": engine, "products": 50, "lists": 1, "p50_ms": 1.234, "p95_ms": 2.0}
    return (
        row | {"pairs_per_s": pairs_per_s, "gpu_percent": 87.4, "gpu_mib": 1024.0, "worst": 0.0012} | changes
    )


def _tool(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program named nvidia-smi on the path, and nothing else of that name."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")


def test_without_a_gpu_nothing_is_measured_or_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nvidia-smi is missing or fails, one sentence says so, with a code of its own and no environment."""
    monkeypatch.setattr(gpu, "ENVIRONMENT", tmp_path / "environment")
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = main([])
    _tool(tmp_path, monkeypatch, "echo no devices were found; exit 6")

    assert NO_GPU == missing == main([])
    assert capsys.readouterr().err.count("There is no NVIDIA GPU here") == 2
    assert not (tmp_path / "environment").exists()


def test_a_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first card's name, driver and memory are what the driver's tool says."""
    _tool(tmp_path, monkeypatch, "echo 'Card A, 1.2, 10 MiB'; echo 'Card B, 1.2, 10 MiB'")

    assert find_gpu() == "Card A, 1.2, 10 MiB"


def test_an_engine_that_fails_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A child process that ends badly gives the code for it, and no table."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 7\n", encoding="utf-8")
    python.chmod(0o755)

    assert main(["--device", "cpu", "--python", str(python)]) == 1
    assert capsys.readouterr().out == ""


def test_the_table_has_the_fastest_first() -> None:
    """Lines of one load stand together, most pairs per second first; what is not known is a dash."""
    rows = [
        _row("slow", 10.0),
        _row("fast", 12_345.6, gpu_percent=None),
        _row("other load", 5.0, lists=16),
        _row("other model", 1.0, model="a"),
    ]
    lines = format_table(rows).splitlines()

    assert [line.split(" | ")[1] for line in lines[2:]] == ["other model", "fast", "slow", "other load"]
    assert lines[3] == "| bert-base | fast | 50 | 1 | 1.23 | 2.00 | 12,346 | - | 1024 | 1.2e-03 |"
    assert len({line.count("|") for line in lines}) == 1


def test_samples_of_the_tool_are_read_to_the_last_whole_line() -> None:
    """A line that was cut off when the tool was ended counts for nothing."""
    assert read_samples("87, 1024\n91, 2048\n93, 1") == [(87.0, 1024.0), (91.0, 2048.0)]
    assert read_samples("") == []


def test_the_gpu_is_watched_while_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tool writes until the block ends is noted, and the tool is ended then."""
    ready = tmp_path / "ready"
    _tool(tmp_path, monkeypatch, f"echo '50, 100'; echo '70, 300'; touch {ready}; exec sleep 60")
    with watched() as seen:
        while not ready.exists():
            pass

    assert seen == [(50.0, 100.0), (70.0, 300.0)]


def test_figures_are_what_they_are_called() -> None:
    """Pairs per second are of the time of all calls, utilisation a mean and memory the most."""
    line = figures_of(
        "m", "e", products=50, lists=2, times_ms=[10.0, 20.0, 30.0], seen=[(50, 100), (70, 300)], worst=0.5
    )

    assert (line.p50_ms, line.p95_ms, line.pairs_per_s) == (20.0, 30.0, 50 * 2 * 3 / 0.06)
    assert (line.gpu_percent, line.gpu_mib, line.worst) == (60.0, 300.0, 0.5)


def test_every_call_is_of_so_many_lists() -> None:
    """Lists are taken in groups, over and over until the time is up, at least three times."""
    asked = []

    def engine(lists: list[tuple[str, list[str]]]) -> np.ndarray:
        asked.append(len(lists))
        return np.zeros(0, np.float32)

    times_ms, _ = measure(engine, make_lists(3, 8, seed=1), at_once=4, seconds=0.0)

    assert len(times_ms) == 3
    assert set(asked) == {4}


def test_our_engine_gives_logits_in_the_order_of_the_lists(tmp_path: Path) -> None:
    """Lists that are asked at once come back as they do one by one, one after the other."""
    build_tiny(tmp_path, "measured")
    lists = make_lists(20, 5, seed=2)
    with shelfrank(tmp_path, "cpu") as engine:
        at_once, alone = engine(lists), [engine([each]) for each in lists]

    assert len(at_once) == 5 * 20
    assert at_once.tobytes() == np.concatenate(alone).tobytes()
