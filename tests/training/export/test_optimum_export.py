"""The graph that Optimum makes: our signature, the same numbers, and refusal of what has no counterpart."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from training.errors import StageError
from training.export.optimum_export import export_by_optimum, with_our_signature
from training.models.runtime import OrtSession

ALL = ("input_ids", "token_type_ids", "attention_mask")


def column_graph(
    inputs: Sequence[str] = ALL, *, output: str = "logits", columns: int = 1, kind: int = TensorProto.INT64
) -> onnx.ModelProto:
    """As Optimum writes them: inputs [batch_size, sequence_length], logits [batch_size, columns].

    Each logit is the sum of all inputs of the row, a tenth part of them.
    """
    nodes = [
        *(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in inputs),
        helper.make_node("Sum", [f"{name}_float" for name in inputs], ["total"]),
        helper.make_node("ReduceSum", ["total", "axis"], ["row"], keepdims=1),
        helper.make_node("Expand", ["row", "shape"], ["wide"]),
        helper.make_node("Mul", ["wide", "tenth"], [output]),
    ]
    axes = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info(name, kind, axes) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch_size", columns])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("shape", TensorProto.INT64, [2], [1, columns]),
            helper.make_tensor("tenth", TensorProto.FLOAT, [], [0.1]),
        ],
        value_info=[helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch_size", 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def feeds(rows: int, length: int) -> dict[str, Any]:
    """Small whole numbers for each input."""
    draws = np.random.default_rng(rows)
    return {name: draws.integers(0, 9, (rows, length)) for name in ALL}


@pytest.mark.parametrize("inputs", [ALL, ("input_ids", "attention_mask")])
def test_the_graph_gets_our_signature(inputs: tuple[str, ...]) -> None:
    """Three int64 inputs in our order, whether the architecture reads them all or not; logits [batch]."""
    made = with_our_signature(column_graph(inputs))
    session = OrtSession(made.SerializeToString())
    onnx.checker.check_model(made, full_check=True)

    assert [(spec.name, spec.dtype, spec.shape) for spec in (*session.inputs, *session.outputs)] == [
        ("input_ids", "int64", ("batch", "sequence")),
        ("attention_mask", "int64", ("batch", "sequence")),
        ("token_type_ids", "int64", ("batch", "sequence")),
        ("logits", "float32", ("batch",)),
    ]


@pytest.mark.parametrize("inputs", [ALL, ("input_ids", "attention_mask")])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 3)])
def test_the_numbers_stay_the_same(inputs: tuple[str, ...], shape: tuple[int, int]) -> None:
    """Logits are those of the column, for one row and for several; an input that nobody reads changes nothing."""
    fed = feeds(*shape)
    logits = OrtSession(with_our_signature(column_graph(inputs)).SerializeToString()).run(fed)

    assert logits.tolist() == pytest.approx(0.1 * sum(fed[name].sum(axis=1) for name in inputs))


def test_the_given_graph_is_left_alone() -> None:
    """The signature is changed on a copy."""
    given = column_graph()
    before = given.SerializeToString()
    with_our_signature(given)

    assert before == given.SerializeToString()


@pytest.mark.parametrize(
    ("graph", "named"),
    [
        (column_graph(("input_ids", "position_ids")), "position_ids"),
        (column_graph(kind=TensorProto.INT32), "input_ids"),
        (column_graph(columns=3), r"logits \[0, 3\]"),
        (column_graph(output="last_hidden_state"), "last_hidden_state"),
    ],
    ids=["foreign input", "int32 inputs", "three labels", "another output"],
)
def test_what_has_no_counterpart_is_refused(graph: onnx.ModelProto, named: str) -> None:
    """An input or output that ours has no place for is named."""
    with pytest.raises(StageError, match=named):
        with_our_signature(graph)


def install(monkeypatch: pytest.MonkeyPatch, export: Any) -> None:
    """Put a stand-in for Optimum's exporter where it would be imported from."""
    module = ModuleType("optimum.exporters.onnx")
    module.onnx_export_from_model = export  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", module)
    for name in ("optimum", "optimum.exporters"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


def test_what_optimum_writes_is_read_and_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter is asked for one file of the recipe's opset, and its graph comes back with our signature."""
    asked: list[Any] = []

    def export(model: Any, folder: str, **options: Any) -> None:
        asked.append((model, options["opset"], options["task"]))
        onnx.save(column_graph(), Path(folder) / "model.onnx")

    install(monkeypatch, export)
    made = export_by_optimum("a model", 20)

    assert asked == [("a model", 20, "text-classification")]
    assert [info.name for info in made.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]


def test_an_architecture_that_optimum_does_not_know_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimum's refusal becomes one line that names the model's class."""

    def export(*_: Any, **__: Any) -> None:
        raise ValueError("unsupported architecture\nand a page of advice")

    install(monkeypatch, export)
    with pytest.raises(StageError, match=r"cannot export dict: unsupported architecture$"):
        export_by_optimum({}, 20)  # type: ignore[arg-type]


def test_without_optimum_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Optimum is not installed, the message names the lock that brings it."""
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(StageError, match=r"requirements/optimum\.lock"):
        export_by_optimum("a model", 20)  # type: ignore[arg-type]
