"""The guard of the engine's speed: its statistics, its records, its plain graph, and whole runs of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.baseline import open_baseline
from benchmarks.engine.bound import Shape
from benchmarks.engine.check import (
    HOLDS,
    SLOWER,
    Ratio,
    is_slower,
    last_record,
    machine_kind,
    main,
    measure,
    ratio_of,
)
from benchmarks.engine.workload import make_lists, open_bundle

TIMES = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=20)
QUICK = ["--bundle", "tiny", "--rounds", "2", "--lists", "2", "--products", "4"]


@given(TIMES, st.floats(0.5, 4.0))
def test_interval_holds_the_ratio(times_s: list[float], factor: float) -> None:
    """Of times that are all longer by a factor the ratio is that factor, inside its interval."""
    ratio = ratio_of([factor * time_s for time_s in times_s], times_s)

    assert ratio.value == pytest.approx(factor)
    assert ratio.low <= ratio.value * 1.000001
    assert ratio.high >= ratio.value * 0.999999


def test_noise_alone_is_no_regression() -> None:
    """Noisy runs of an engine as fast as before never fail; those of one slowed down by a fifth mostly do."""
    rng = np.random.default_rng(1)

    def run(slowed: float) -> bool:
        plain = 0.1 * rng.lognormal(0.0, 0.1, 30)
        engine = 0.05 * slowed * rng.lognormal(0.0, 0.1, 30)
        return is_slower(ratio_of(plain.tolist(), engine.tolist()), before=2.0)

    assert not any(run(1.0) for _ in range(100))
    assert sum(run(1.25) for _ in range(100)) > 60


def test_last_record_of_the_same_kind(tmp_path: Path) -> None:
    """Only a record of the same processor and of the same thing counts, and of those the last."""
    history = tmp_path / "history.jsonl"
    assert last_record(history, kind={"cores": 2}, measured="a") is None
    kinds = [
        ({"cores": 2}, "a", 1.0),
        ({"cores": 2}, "a", 2.0),
        ({"cores": 4}, "a", 3.0),
        ({"cores": 2}, "b", 4.0),
    ]
    history.write_text(
        "".join(
            json.dumps({"kind": kind, "measured": of, "ratio": ratio}) + "\n" for kind, of, ratio in kinds
        )
    )

    found = last_record(history, kind={"cores": 2}, measured="a")

    assert found is not None
    assert 2.0 == found["ratio"]
    assert last_record(history, kind={"cores": 8}, measured="a") is None


def test_both_compute_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two gets every list of each turn, and times are kept of all turns but the first."""
    monkeypatch.setattr("benchmarks.engine.check.PAUSE_S", 0.0)
    seen: dict[str, list[int]] = {"plain": [], "engine": []}
    bundle, _ = open_bundle("tiny")
    lists = make_lists(bundle, 1, 3, seed=1)
    numbers = {id(rows): number for number, rows in enumerate(lists)}

    plain_s, engine_s = measure(
        lists,
        lambda rows: seen["plain"].append(numbers[id(rows)]),
        lambda rows: seen["engine"].append(numbers[id(rows)]),
        5,
    )

    assert seen["plain"] == seen["engine"]
    assert {0, 1, 2} == set(seen["plain"])
    assert (5, 5) == (len(plain_s), len(engine_s))


def test_plain_graph_ranks_and_heeds_the_mask() -> None:
    """The yardstick gives one logit a row, and padding hardly changes it (its scales are the batch's)."""
    session = open_baseline(Shape(2, 64, 256), 100, threads=1)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 100, (3, 8))
    short = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    padded = {name: np.pad(values, ((0, 0), (0, 8))) for name, values in short.items()}
    (one,), (other,) = session.run(None, short), session.run(None, padded)

    assert (3, 1) == one.shape
    np.testing.assert_allclose(one, other, atol=0.02)
    assert np.ptp(one) > 0


def test_guard_records_once_and_then_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a record the run becomes one; against it the next holds; against one far faster it fails."""
    history = tmp_path / "history.jsonl"
    options = [*QUICK, "--history", str(history)]

    assert HOLDS == main(options)
    assert "this run is recorded" in capsys.readouterr().out
    (line,) = history.read_text().splitlines()
    record = json.loads(line)
    assert machine_kind() == record["kind"]
    assert record["low"] <= record["ratio"] <= record["high"]

    history.write_text(json.dumps(record | {"ratio": record["high"] * 100}) + "\n")
    assert SLOWER == main([*options, "--record"])
    output = capsys.readouterr().out
    assert "SLOWER" in output
    assert json.loads(output.splitlines()[-1])["slower"] is True
    assert 2 == len(history.read_text().splitlines())


def test_upper_end_decides() -> None:
    """A run whose interval reaches into what is allowed is no regression."""
    assert not is_slower(Ratio(1.0, 0.9, 1.81), before=2.0, margin=0.1)
    assert is_slower(Ratio(1.0, 0.9, 1.79), before=2.0, margin=0.1)
