"""Latency over load: how samples become points, points a verdict and a figure, and one short run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.service.curve import MEASURED, Point, p99_interval, summarise, verdict
from benchmarks.shared.load import Sample
from benchmarks.shared.target import REPOSITORY, ServiceError


def _sample(latency_ms: float, *, status: int = 200, share: float = 1.0) -> Sample:
    return Sample(10.0, 10.001, 10.0 + latency_ms / 1_000, status, share)


def _point(p99_ms: float) -> Point:
    samples = [_sample(50.0)] * 97 + [_sample(p99_ms)] * 3
    return summarise(samples, load=0.3, rate=6.0, idle_s=[0.05])


def test_point_of_samples() -> None:
    """Latency counts from the due time, of full answers; the rest has failed; theory stands beside it."""
    samples = [*[_sample(50.0)] * 98, _sample(120.0), _sample(1.0, share=0.0), _sample(2.0, status=503)]
    point = summarise(samples, load=0.3, rate=6.0, idle_s=[0.04, 0.06])

    assert (101, 2) == (point.requests, point.failed)
    assert (50.0, 50.0, 120.0) == tuple(round(ms, 6) for ms in (point.p50_ms, point.p95_ms, point.p99_ms))
    assert 0.3 == pytest.approx(point.utilisation)
    assert 2.89 * 50 == pytest.approx(point.equal_p99_ms, abs=0.5)
    assert point.single_p99_ms is not None
    assert point.single_p99_ms > 100.0


def test_more_than_one_server_can_do_has_no_theory() -> None:
    """Where lists come faster than one at a time is done, a single server's queue grows without end."""
    point = summarise([_sample(50.0)], load=0.9, rate=20.0, idle_s=[0.05])

    assert (None, None) == (point.equal_p99_ms, point.single_p99_ms)


def test_nothing_answered_is_an_error() -> None:
    """A load at which nothing is answered gives no point."""
    with pytest.raises(ServiceError, match="nothing was answered"):
        summarise([_sample(1.0, status=503)], load=0.5, rate=1.0, idle_s=[0.05])


def test_interval_of_the_tail() -> None:
    """The 99th percentile lies inside its interval, which is within the values seen."""
    low, high = p99_interval([float(value) for value in range(1, 1_001)])

    assert 970 <= low < 990 < high <= 1_000


@pytest.mark.parametrize(
    ("p99_ms", "says"), [(100.0, "holds, it is 2.00"), (101.0, "does not hold, it is 2.02")]
)
def test_verdict(p99_ms: float, says: str) -> None:
    """Twice the idle median is allowed, and not more; theory's own figure is told."""
    text = verdict(_point(p99_ms), idle_ms=50.0)

    assert says in text
    assert "gives 2.89" in text
    assert "13.5%" in text


def test_a_short_run_and_its_figure(tiny_bundle: Path, tmp_path: Path) -> None:
    """A run starts the service and tells its memory and its loads; its document becomes a figure, twice the same."""
    command = [
        sys.executable,
        "benchmarks/service/curve.py",
        "--loads",
        "0.2,0.3",
        "--requests",
        "20",
        "--products",
        "5",
    ]
    settings = {"SHELFRANK_MODELS_ROOT": str(tiny_bundle), "SHELFRANK_BUNDLE": "tiny"}
    finished = subprocess.run(
        [*command, "--idle", "5", "--capacity-s", "0.3"],
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    document = json.loads(finished.stdout.splitlines()[-1])
    result = tmp_path / "result.txt"
    result.write_text(finished.stdout)

    assert finished.returncode == MEASURED or document["void"], finished.stderr
    assert [0.2, 0.3] == [point["load"] for point in document["points"]]
    assert [20, 20] == [point["requests"] for point in document["points"]]
    assert document["memory_mb"]["most"] >= document["memory_mb"]["ready"] > 10
    assert document["ready_s"] > 0
    assert "p99 at most 2 median service times at 30%" in finished.stdout

    pytest.importorskip("matplotlib", reason="issue 5: figures are drawn where the training extra is")
    from benchmarks.service.curve_plot import main as draw  # noqa: PLC0415  matplotlib is not everywhere

    for figure in ("one.svg", "other.svg"):
        assert 0 == draw([str(tmp_path / figure), str(result)])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
