"""The quantisation gate: what it measures, and that a broken limit writes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from bundle.text import Row
from training import quantize
from training.lists import encode_lists, read_lists
from training.runtime import OrtSession
from training.stages import StageError
from training.student import load
from training.student_sections import QuantizeRecipe

Make = Callable[..., Any]
LOOSE = ("quantize.min_spearman=0.9", "quantize.min_pair_order=0.9", "quantize.max_rms=0.3")
GOOD = {"spearman": 1.0, "rms": 0.0, "pair_order": 1.0, "ndcg_change": 0.0, "batch_drift": 0.0}


class Leaky:
    """A session whose scores depend on the batch: each logit has a part of its batch's mean."""

    def __init__(self, session: OrtSession) -> None:
        """Wrap a real session."""
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Return the leaking logits."""
        logits = self.session.run(feeds)
        return logits + 1e-3 * logits.mean()


def test_stage_writes_a_graph_that_keeps_its_limits(context: Make) -> None:
    """The stage leaves an int8 graph, and its figures include a batch drift of exactly zero."""
    made = context("quantize", *LOOSE)
    figures = quantize.run(made)

    assert figures["batch_drift"] == 0
    assert figures["bytes"] == (made.out / "model.int8.onnx").stat().st_size
    assert figures["bytes"] < (made.inputs("export") / "model.onnx").stat().st_size


def test_a_broken_limit_raises_and_writes_nothing(context: Make) -> None:
    """A limit nothing can keep ends the stage with its name and no graph."""
    made = context("quantize", "quantize.max_rms=1e-9")
    with pytest.raises(StageError, match="rms"):
        quantize.run(made)

    assert not (made.out / "model.int8.onnx").exists()


@pytest.mark.parametrize("name", list(GOOD))
def test_every_limit_is_kept_by_a_good_graph_and_broken_by_nan(name: str) -> None:
    """No figure slips through because it is not a number."""
    assert not quantize.broken_limits(GOOD, QuantizeRecipe())

    broken = quantize.broken_limits(GOOD | {name: float("nan")}, QuantizeRecipe())

    assert len(broken) == 1
    assert broken[0].startswith(name)


def test_batch_drift_sees_a_graph_that_leaks(context: Make) -> None:
    """Negative control: scores that depend on their batch are caught, the student's own are not."""
    made = context("export")
    student = load(made.inputs("distil"))
    lists = read_lists(made.inputs("data") / "pairs.parquet", "validation")
    rows: list[Row] = encode_lists(student.encoder, lists)
    session = OrtSession((made.out / "model.onnx").read_bytes())

    assert quantize.batch_drift(session, rows, student.contract) < 1e-5
    assert quantize.batch_drift(Leaky(session), rows, student.contract) > 1e-5


def test_fidelity_of_equal_and_of_reversed_scores(context: Make) -> None:
    """Equal logits are faithful; reversed ones are not, by every figure."""
    made = context("quantize")
    lists = read_lists(made.inputs("data") / "pairs.parquet", "validation")
    gains = np.concatenate([judged.gains for judged in lists]).astype(np.float32)
    same, reverse = quantize.fidelity(gains, gains, lists), quantize.fidelity(gains, -gains, lists)

    assert same == {"spearman": pytest.approx(1), "rms": 0, "pair_order": 1, "ndcg_change": 0}
    assert reverse["spearman"] == pytest.approx(-1)
    assert reverse["pair_order"] == 0
    assert reverse["ndcg_change"] < 0


def test_calibration_rows_are_training_pairs(context: Make) -> None:
    """The rows are drawn from the training split, as many as asked, the same ones for the same seed."""
    made = context("quantize")
    student, pairs = load(made.inputs("distil")), made.inputs("data") / "pairs.parquet"
    known = {row.ids for row in encode_lists(student.encoder, read_lists(pairs, "train"))}
    rows = quantize.calibration_rows(pairs, student.encoder, 30, 5)

    assert len(rows) == 30
    assert all(row.ids in known for row in rows)
    assert rows == quantize.calibration_rows(pairs, student.encoder, 30, 5)
    assert rows != quantize.calibration_rows(pairs, student.encoder, 30, 6)
