"""The quantisation gate: what it measures, and that a broken limit writes nothing."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from bundle.manifest import Calibration
from bundle.rows import Row
from bundle.score import class_probabilities
from bundle.text import Product
from tests.training import support
from training.data.lists import JudgedList, encode_lists, read_lists
from training.errors import StageError
from training.export import quantize
from training.models.runtime import OrtSession
from training.sections.export import QuantizeRecipe
from training.stages import STAGES
from training.student.student import load

Make = Callable[..., Any]
LOOSE = (
    "quantize.min_spearman=0.9",
    "quantize.min_list_spearman=0.9",
    "quantize.min_pair_order=0.9",
    "quantize.max_rms=0.3",
    "quantize.max_ndcg_drop=0.1",
    "quantize.max_dataset_ndcg_drop=0.1",
    "quantize.max_ece_rise=0.1",
)
GOOD = {
    "spearman": 1.0,
    "list_spearman": 1.0,
    "rms": 0.0,
    "pair_order": 1.0,
    "ndcg_change": 0.0,
    "ndcg_change esci": 0.0,
    "ece_rise": 0.0,
    "batch_drift": 0.0,
}
ERRORS = {"ndcg_change_error": 0.0, "ndcg_change_error esci": 0.0}
FITTED = Calibration(method="ordinal", slope=1.0, thresholds=(-1.0, 0.0, 1.0))


class Leaky:
    """A session whose scores depend on the batch: each logit has a part of its batch's mean."""

    def __init__(self, session: OrtSession) -> None:
        """Wrap a real session."""
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Return the leaking logits."""
        logits = self.session.run(feeds)
        return logits + 1e-3 * logits.mean()


@pytest.fixture
def prepared(context: Make) -> Make:
    """Make the context of the stage, as `context` does, with a calibration already fitted."""

    def make(*overrides: str) -> Any:
        made = context("quantize", *overrides)
        folder = support.make_context(made.run.root, "calibrate").out
        (folder / "calibration.json").write_text(FITTED.model_dump_json())
        return made

    return make


def a_list(dataset: str, grades: tuple[int, ...], label: str | None = "E") -> JudgedList:
    """A judged list whose gains are its grades; only dataset, grades and kind of label matter here."""
    count = len(grades)
    return JudgedList(
        dataset=dataset,
        query_id="q",
        query="shoe",
        product_ids=tuple(map(str, range(count))),
        products=(Product(title="shoe"),) * count,
        labels=(label,) * count,
        grades=grades,
        gains=np.array(grades, np.float64),
    )


def test_stage_writes_a_graph_that_keeps_its_limits(prepared: Make) -> None:
    """The stage leaves an int8 graph, and its figures include a batch drift of exactly zero."""
    made = prepared(*LOOSE)
    figures = quantize.run(made)

    assert figures["batch_drift"] == 0
    assert figures["bytes"] == (made.out / "model.int8.onnx").stat().st_size
    assert figures["bytes"] < (made.inputs("export") / "model.onnx").stat().st_size
    assert json.loads((made.out / "quantize.json").read_text()) == figures
    assert {name for name, value in figures.items() if isinstance(value, float)} == {
        "ndcg_change s",
        "ndcg_change_error",
        "ndcg_change_error s",
        *(name for name in GOOD if not name.endswith("esci")),
    }


def test_a_broken_limit_raises_and_writes_nothing(prepared: Make) -> None:
    """A limit nothing can keep ends the stage with its name and no graph."""
    made = prepared("quantize.max_rms=1e-9")
    with pytest.raises(StageError, match="rms"):
        quantize.run(made)

    assert not (made.out / "model.int8.onnx").exists()


@pytest.mark.parametrize("name", list(GOOD))
def test_every_limit_is_kept_by_a_good_graph_and_broken_by_nan(name: str) -> None:
    """No figure slips through because it is not a number."""
    assert not quantize.broken_limits(GOOD | ERRORS, QuantizeRecipe())

    broken = quantize.broken_limits(GOOD | ERRORS | {name: float("nan")}, QuantizeRecipe())

    assert len(broken) == 1
    assert broken[0].startswith(f"{name} nan")


@pytest.mark.parametrize(
    ("name", "kept", "refused"),
    [
        ("list_spearman", 0.991, 0.989),
        ("ndcg_change", -0.004, -0.006),
        ("ndcg_change esci", -0.019, -0.021),
        ("ece_rise", 0.009, 0.011),
        ("batch_drift", 0.0, 1e-9),
    ],
)
def test_a_limit_lies_where_the_recipe_puts_it(name: str, kept: float, refused: float) -> None:
    """A figure just inside its default limit passes, one just outside is named."""
    assert not quantize.broken_limits(GOOD | ERRORS | {name: kept}, QuantizeRecipe())

    broken = quantize.broken_limits(GOOD | ERRORS | {name: refused}, QuantizeRecipe())

    assert len(broken) == 1
    assert broken[0].startswith(f"{name} {str(refused)[:3]}")


@pytest.mark.parametrize(
    ("change", "error", "is_kept"),
    [(-0.0078, 0.004, True), (-0.0078, 0.003, False), (-0.0049, 0.0, True), (-0.05, 0.02, False)],
)
def test_the_limit_of_a_fall_follows_its_error(change: float, error: float, is_kept: bool) -> None:  # noqa: FBT001
    """What 14 lists cannot tell from nothing is no reason to refuse a graph; what is beyond two errors is."""
    found = GOOD | {"ndcg_change": change, "ndcg_change_error": error, "ndcg_change_error esci": 0.0}

    assert (not quantize.broken_limits(found, QuantizeRecipe())) == is_kept


def test_one_list_alone_refuses_nothing() -> None:
    """A data set of one list has an error as large as its change, whatever that is."""
    lists = [a_list("large", (0, 1))] * 40 + [a_list("single", (0, 1))]
    exact = np.float32([0, 1] * 41)
    found = GOOD | quantize.fidelity(exact, np.float32([0, 1] * 40 + [1, 0]), lists)
    found |= {"pair_order": 1.0, "list_spearman": 1.0, "rms": 0.0, "spearman": 1.0} | ERRORS

    assert found["ndcg_change single"] < -0.3
    assert not quantize.broken_limits(found, QuantizeRecipe(max_ndcg_drop=0.02))


def test_a_broken_limit_names_its_key() -> None:
    """The line says which key of the recipe sets the limit, also where a data set's name stands in between."""
    bad = {"rms": 0.2, "ndcg_change esci": -0.1, "spearman": 0.5}

    told = quantize.broken_limits(GOOD | ERRORS | bad, QuantizeRecipe())

    assert told == [
        "spearman 0.5 < 0.98 (quantize.min_spearman)",
        "ndcg_change esci -0.1 < -0.02 (quantize.max_dataset_ndcg_drop)",
        "rms 0.2 > 0.15 (quantize.max_rms)",
    ]


def test_a_better_graph_is_never_refused() -> None:
    """A rise of NDCG and a fall of the calibration error pass, however large."""
    better = {"ndcg_change": 0.5, "ndcg_change esci": 0.5, "ece_rise": -0.5}

    assert not quantize.broken_limits(GOOD | ERRORS | better, QuantizeRecipe())


def test_the_stage_reads_the_fitted_calibration() -> None:
    """A new calibration makes the int8 graph out of date, for its gate depends on it."""
    assert "calibrate" in STAGES["quantize"][1]


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

    assert same == {
        "spearman": pytest.approx(1),
        "list_spearman": pytest.approx(1),
        "rms": 0,
        "pair_order": 1,
        "ndcg_change": 0,
        "ndcg_change_error": 0,
        "ndcg_change s": 0,
        "ndcg_change_error s": 0,
    }
    assert reverse["spearman"] == reverse["list_spearman"] == pytest.approx(-1)
    assert reverse["pair_order"] == 0
    assert reverse["ndcg_change"] < 0


def test_rank_agreement_is_measured_in_each_list() -> None:
    """Two lists far apart hide a swap within one from the pooled correlation, not from the mean over lists."""
    lists = [a_list("a", (1, 2, 3)), a_list("a", (1, 2, 3))]
    exact, swapped = np.float32([1, 2, 3, 101, 102, 103]), np.float32([1, 3, 2, 101, 102, 103])
    found = quantize.fidelity(exact, swapped, lists)

    assert found["list_spearman"] == pytest.approx(0.75)
    assert found["spearman"] > 0.9


def test_lists_without_an_order_count_by_who_lost_it() -> None:
    """A list that fp32 ties says nothing about rank agreement; one that only int8 ties agrees not at all."""
    lists = [a_list("a", (1, 2)), a_list("a", (1, 2))]
    told, tied = np.float32([1, 2, 1, 2]), np.float32([1, 2, 1, 1])

    assert quantize.fidelity(tied, told, lists)["list_spearman"] == pytest.approx(1)
    assert quantize.fidelity(told, tied, lists)["list_spearman"] == pytest.approx(0.5)
    assert quantize.fidelity(told * 0, told, lists)["list_spearman"] == 1


def test_ndcg_change_is_told_for_every_data_set() -> None:
    """A fall in a small data set shows under its name, and is weighted by its lists in the mean."""
    lists = [a_list("large", (0, 1))] * 3 + [a_list("small", (0, 1))]
    exact = np.float32([0, 1] * 4)
    found = quantize.fidelity(exact, np.float32([0, 1, 0, 1, 0, 1, 1, 0]), lists)
    fall = 1 / np.log2(3) - 1

    assert found["ndcg_change large"] == 0
    assert found["ndcg_change small"] == pytest.approx(fall)
    assert found["ndcg_change"] == pytest.approx(fall / 4)
    assert found["ndcg_change_error"] == pytest.approx(abs(fall) / 4)
    assert found["ndcg_change_error large"] == 0
    assert found["ndcg_change_error small"] == pytest.approx(abs(fall))


def test_calibration_error_rises_with_overconfident_logits() -> None:
    """The rise is 0 for equal logits, large for stretched ones, and negative the other way round."""
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 1, 400).astype(np.float32)
    chances = np.cumsum(class_probabilities(logits, FITTED), axis=1)
    grades = tuple(int(grade) for grade in (draws.random((400, 1)) > chances).sum(axis=1))
    lists = [a_list("a", grades)]

    assert quantize.ece_rise(logits, logits, lists, FITTED) == 0
    assert quantize.ece_rise(logits, logits * 5, lists, FITTED) > 0.1
    assert quantize.ece_rise(logits * 5, logits, lists, FITTED) < -0.1


def test_calibration_error_is_measured_where_the_labels_are_classes() -> None:
    """Lists of plain grades do not count beside labelled ones, and count where there are no others."""
    labelled, graded = a_list("a", (3, 0)), a_list("b", (3, 0), label=None)
    exact, rounded = np.float32([9, -9, 9, -9]), np.float32([9, -9, -9, 9])

    assert quantize.ece_rise(exact, rounded, [labelled, graded], FITTED) == 0
    assert quantize.ece_rise(exact, rounded, [graded, graded], FITTED) > 0.4


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
