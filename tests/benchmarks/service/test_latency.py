"""What the latency benchmark computes from a run, and one short run against the real service."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.service.latency import (
    FAILED,
    MEASURED,
    VOID,
    Figures,
    format_table,
    main,
    summarise,
)
from benchmarks.shared.load import Sample
from benchmarks.shared.target import REPOSITORY


def _sample(latency_ms: float, *, late_ms: float = 0.0, status: int = 200, share: float = 1.0) -> Sample:
    return Sample(10.0, 10.0 + late_ms / 1_000, 10.0 + latency_ms / 1_000, status, share)


def _figures(samples: list[Sample]) -> Figures:
    return summarise(samples, products=50, rate=5.0, capacity=20.0, goal_ms=50.0)


def test_hand_computed_figures() -> None:
    """Latency counts from the due time, of answered requests; goodput counts all requests."""
    samples = [
        _sample(10.0, late_ms=1.0),
        _sample(20.0),
        _sample(60.0),
        _sample(30.0, share=0.5),
        _sample(5.0, status=429),
        _sample(9_999.0, status=0, late_ms=3.0),
    ]

    figures = _figures(samples)

    assert (figures.requests, figures.errors, figures.degraded) == (6, 2, 1)
    assert (figures.p50_ms, figures.p99_ms, figures.max_ms) == pytest.approx((20.0, 60.0, 60.0))
    assert figures.goodput == pytest.approx(2 / 6)
    assert figures.lateness_p99_ms == pytest.approx(3.0)


def test_run_without_answers() -> None:
    """If nothing was answered there are no latencies, no goodput, and still a table."""
    figures = _figures([_sample(1.0, status=0)])

    assert (figures.p50_ms, figures.max_ms, figures.goodput, figures.errors) == (None, None, 0.0, 1)
    assert "| - |" in format_table([figures], 50.0)


def test_table_is_rectangular() -> None:
    """Every line of the table has as many cells as its head."""
    lines = format_table([_figures([_sample(1.0)]), _figures([])], 50.0).splitlines()

    assert len({line.count("|") for line in lines}) == 1
    assert "25% of 20.0/s" in lines[2]


@pytest.mark.parametrize(
    "option",
    ["--rate=0", "--load=9", "--duration-s=1e9", "--sizes=0", "--sizes=181", "--sizes=x", "--nonsense"],
)
def test_bad_option_is_a_failure_not_void(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 means VOID only, so a bad option ends with 1 and is named."""
    with pytest.raises(SystemExit) as caught:
        main([option])

    assert caught.value.code == FAILED
    assert option.split("=", maxsplit=1)[0] in capsys.readouterr().err


def test_nothing_to_measure_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """An address where nobody listens ends with 1 and one line."""
    assert main(["--url", "http://127.0.0.1:9"]) == FAILED
    assert capsys.readouterr().err.startswith("FAILED: nothing answers at")


@pytest.mark.parametrize(("limit_ms", "code"), [("1000", MEASURED), ("0", VOID)])
def test_run_against_the_real_service(tiny_bundle: Path, limit_ms: str, code: int) -> None:
    """A run starts the service, measures and ends it; its last line is JSON, and with no allowance it is VOID."""
    command = [sys.executable, "benchmarks/service/latency.py", "--sizes", "5", "--rate", "20"]
    limits = ["--duration-s", "0.5", "--warmup-s", "0.1", "--max-lateness-ms", limit_ms]
    settings = {"SHELFRANK_MODELS_ROOT": str(tiny_bundle), "SHELFRANK_BUNDLE": "tiny"}

    finished = subprocess.run(
        [*command, *limits],
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )

    lines = finished.stdout.splitlines()
    document = json.loads(lines[-1])
    assert finished.returncode == code, finished.stderr
    assert document["void"] is any(line.startswith("VOID") for line in lines) is (code == VOID)
    assert document["served"]["model"] == "tiny@1.0.0"
    assert document["rows"][0]["errors"] == 0
    assert document["rows"][0]["p50_ms"] > 0


def test_service_that_does_not_start_is_a_failure(tmp_path: Path) -> None:
    """If the service refuses its bundle, its reason is shown and the code is 1."""
    finished = subprocess.run(
        [sys.executable, "benchmarks/service/latency.py"],
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "SHELFRANK_MODELS_ROOT": str(tmp_path), "SHELFRANK_BUNDLE": "absent"},
        capture_output=True,
        text=True,
    )

    assert finished.returncode == FAILED
    assert "not_found" in finished.stderr
