"""What the latency benchmark computes from a run, and one short run against the real service."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latency import (
    FAILED,
    MEASURED,
    VOID,
    Figures,
    format_table,
    main,
    make_bodies,
    percentile,
    summarise,
)
from benchmarks.load import Sample
from benchmarks.make_products import PRODUCTS
from benchmarks.target import describe_commit, describe_machine, describe_versions

ROWS = [json.loads(line) for line in PRODUCTS.read_text(encoding="utf-8").splitlines()]


def _sample(latency_ms: float, *, late_ms: float = 0.0, status: int = 200, share: float = 1.0) -> Sample:
    return Sample(10.0, 10.0 + late_ms / 1_000, 10.0 + latency_ms / 1_000, status, share)


def _figures(samples: list[Sample]) -> Figures:
    return summarise(samples, products=50, rate=5.0, capacity=20.0, goal_ms=50.0)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    """At least the share of all values is at or below it, and it is one of them."""
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_percentile_of_nothing() -> None:
    """Without values there is no percentile."""
    assert percentile([], 0.5) is None


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


@pytest.mark.parametrize("size", [1, 5, 8, 10, 100, 180])
def test_bodies_are_distinct_lists_of_the_size(size: int) -> None:
    """Every body has one query and so many different products, its own ones among them."""
    titles = {row["title"]: row["query"] for row in ROWS}

    bodies = [json.loads(body) for body in make_bodies(ROWS, size, random.Random(1))]  # noqa: S311 - lists, not secrets

    assert len({json.dumps(body) for body in bodies}) > 20
    for body in bodies:
        found = [titles[document["title"]] for document in body["documents"]]
        assert len({document["title"] for document in body["documents"]}) == size
        assert found.count(body["query"]) == min(size, 8)
        assert all("query" not in document and "" not in document.values() for document in body["documents"])


def test_machine_versions_and_commit_are_told() -> None:
    """Figures without a machine and a commit are worth nothing."""
    assert describe_machine()["cpu"]
    assert describe_versions()["python"]
    assert describe_commit()


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
    command = [sys.executable, "benchmarks/latency.py", "--sizes", "5", "--rate", "20"]
    limits = ["--duration-s", "0.5", "--warmup-s", "0.1", "--max-lateness-ms", limit_ms]
    settings = {"SHELFRANK_MODELS_ROOT": str(tiny_bundle), "SHELFRANK_BUNDLE": "tiny"}

    finished = subprocess.run(
        [*command, *limits],
        check=False,
        cwd=PRODUCTS.parents[1],
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
        [sys.executable, "benchmarks/latency.py"],
        check=False,
        cwd=PRODUCTS.parents[1],
        env={**os.environ, "SHELFRANK_MODELS_ROOT": str(tmp_path), "SHELFRANK_BUNDLE": "absent"},
        capture_output=True,
        text=True,
    )

    assert finished.returncode == FAILED
    assert "not_found" in finished.stderr
