"""The engine beside the machine's limit: what is read from a graph, how lists are computed, and a whole run."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.engine.bound import Shape
from benchmarks.engine.limit import FAILED, MEASURED, main, open_graphs
from benchmarks.engine.operators import Spent, format_table, profile
from benchmarks.engine.workload import Recorder, make_lists, open_bundle, read_shape, running
from benchmarks.shared.target import REPOSITORY
from bundle.rows import padded_length


def _options() -> argparse.Namespace:
    return argparse.Namespace(products=2, lists=1, seed=1, engine="onnxruntime")


def test_shape_is_read_from_the_graph() -> None:
    """The tiny bundle's graph tells its layers and sizes; a graph without layers is refused."""
    (graph,) = open_graphs(["tiny"], [], _options())

    assert Shape(2, 128, 512) == graph.shape == read_shape(graph.model)


def test_every_row_is_computed_once_at_its_length() -> None:
    """The sessions get all rows of a list, each padded to its own length, in runs of one length."""
    bundle, session = open_bundle("tiny", engine="onnxruntime")
    (rows,) = make_lists(bundle, 12, 1, seed=1)
    recorder = Recorder(session, [])
    with running(bundle, recorder, 2) as seconds:
        assert seconds(rows) > 0

    longest = bundle.manifest.text.max_length
    wanted = sorted((*row.ids, *[0] * (padded_length(len(row), longest) - len(row))) for row in rows)
    assert wanted == sorted(tuple(row) for feeds in recorder.seen for row in feeds["input_ids"].tolist())


def test_engine_failures_are_told() -> None:
    """A session that fails ends the measurement at once with its error, and no time comes of it."""
    bundle, _ = open_bundle("tiny")
    (rows,) = make_lists(bundle, 2, 1, seed=1)

    class Broken:
        inputs = outputs = ()

        def run(self, _: object) -> np.ndarray:
            raise OSError("broken")

    with running(bundle, Broken(), 1) as seconds, pytest.raises(RuntimeError, match="did not compute"):
        seconds(rows)


def test_profile_is_of_all_runs() -> None:
    """Operators come most first, their shares add up to one, and calls are those of a list."""
    bundle, session = open_bundle("tiny", engine="onnxruntime")
    lists = make_lists(bundle, 5, 2, seed=1)
    recorder = Recorder(session, [])
    with running(bundle, recorder, 1) as seconds:
        for rows in lists:
            seconds(rows)
    spent = profile(bundle.files["model.int8.onnx"], recorder.seen, lists=2, repeats=1)

    assert sorted((row.ms for row in spent), reverse=True) == [row.ms for row in spent]
    assert sum(row.share for row in spent) == pytest.approx(1.0)
    products = next(row for row in spent if row.operator == "MatMulIntegerToFloat")
    assert 12 * len(recorder.seen) / 2 == products.calls, "six products in each of two layers"


def test_rare_operators_share_a_line() -> None:
    """What is too little to be told apart is added up."""
    table = format_table([Spent("A", 9.8, 0.98, 4), Spent("B", 0.1, 0.005, 2), Spent("C", 0.1, 0.005, 3)])

    assert "| A | 9.800 | 98.0% | 4 |" in table
    assert "| all others | 0.200 | 1.0% | 5 |" in table


def test_a_short_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables come first and one JSON document last, in which shares are limits over times."""
    quick = ["--bundles", "tiny", "--products", "4", "--lists", "2", "--rounds", "1", "--profile"]

    assert MEASURED == main(quick)
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {1} <= {line["threads"] for line in document["lines"]}
    for line in document["lines"]:
        assert line["share"] == pytest.approx(line["limits_ms"]["int8, CLS-only"] / line["p50_ms"])
        assert 0 < line["limits_ms"]["int8, CLS-only"] < line["limits_ms"]["int8"]
        assert (
            0 < line["limits_ms"]["fp32"]
        )  # where there is no VNNI, the units for floats may be the faster ones
        assert line["real_tokens"] <= line["padded_tokens"]


def test_a_wrong_shape_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """A shape that nobody can read, or torch that is not there, is said in one line."""
    assert FAILED == main(["--bundles", "tiny", "--products", "2", "--lists", "1", "--shapes", "big"])
    assert "FAILED" in capsys.readouterr().err


def test_random_graph_has_its_shape() -> None:
    """A graph made for a shape has that shape and the default bundle's inputs."""
    pytest.importorskip("torch", reason="issue 5: random graphs come out of the training pipeline")
    (_, made) = open_graphs(["tiny"], ["L1-H64"], _options())

    assert Shape(1, 64, 256) == made.shape == read_shape(made.model)


def test_it_runs_as_a_program() -> None:
    """It starts from any folder, and tells its options."""
    program = Path(REPOSITORY) / "benchmarks/engine/limit.py"
    finished = subprocess.run(
        [sys.executable, str(program), "--help"], check=True, capture_output=True, text=True, cwd="/"
    )

    assert "--shapes" in finished.stdout
