"""Export: parity with torch, the promised signature, and refusal when either is missed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import onnx  # noqa: E402
from transformers import DistilBertConfig, DistilBertForSequenceClassification  # noqa: E402

from training import export  # noqa: E402
from training.runtime import OrtSession  # noqa: E402
from training.stages import StageError  # noqa: E402

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def graphs(exported: Path) -> dict[str, bytes]:
    """The student's flat and plain graphs."""
    model = export.load_student(exported / "distil")
    modules = {name: export.graph_module(model, name) for name in ("flat", "plain")}
    return {name: export.to_onnx(module, 20).SerializeToString() for name, module in modules.items()}


@pytest.mark.parametrize("name", ["flat", "plain"])
def test_graph_is_within_parity_of_torch(graphs: dict[str, bytes], exported: Path, name: str) -> None:
    """Both graphs give torch's logits at every shape, with rows of random length."""
    assert export.parity(export.load_student(exported / "distil"), graphs[name]) <= 1e-4


def test_parity_sees_a_changed_weight(graphs: dict[str, bytes], exported: Path) -> None:
    """The parity check is no rubber stamp: one scaled weight breaks it."""
    model = onnx.load_from_string(graphs["flat"])
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "classifier.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) * 1.01, head.name))
    changed = model.SerializeToString()

    assert export.parity(export.load_student(exported / "distil"), changed) > 1e-4


@pytest.mark.parametrize("name", ["flat", "plain"])
def test_graph_keeps_the_signature_and_is_one_file(graphs: dict[str, bytes], name: str) -> None:
    """Three int64 [batch, sequence] inputs, float32 logits [batch], all weights inside, no stale shapes."""
    session = OrtSession(graphs[name])
    model = onnx.load_from_string(graphs[name])
    constants = {tensor.name for tensor in model.graph.initializer}

    assert [(i.name, i.dtype, len(i.shape)) for i in session.inputs] == [
        ("input_ids", "int64", 2),
        ("attention_mask", "int64", 2),
        ("token_type_ids", "int64", 2),
    ]
    assert [(o.name, o.dtype, len(o.shape)) for o in session.outputs] == [("logits", "float32", 1)]
    assert not any(
        tensor.HasField("data_location") and tensor.data_location for tensor in model.graph.initializer
    )
    assert not constants & {info.name for info in model.graph.value_info}


def test_flat_graph_multiplies_less(graphs: dict[str, bytes]) -> None:
    """One product makes query, key and value, but for the last layer's query of [CLS]."""
    counts = {
        name: sum(node.op_type in ("MatMul", "Gemm") for node in onnx.load_from_string(graph).graph.node)
        for name, graph in graphs.items()
    }

    assert counts["flat"] < counts["plain"]


def test_other_architectures_fall_back_to_the_plain_graph(tmp_path: Path) -> None:
    """A model without a flat form and without type ids exports all the same, within parity."""
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    DistilBertForSequenceClassification(DistilBertConfig(num_labels=1, **shape)).save_pretrained(tmp_path)
    model = export.load_student(tmp_path)
    module = export.graph_module(model, "flat")
    graph = export.to_onnx(module, 20).SerializeToString()

    assert isinstance(module, export.PlainGraph)
    assert export.parity(model, graph) <= 1e-4


def test_stage_writes_graph_and_figures(exported: Path) -> None:
    """The stage leaves model.onnx and says which graph it is."""
    figures = json.loads((exported / "export" / "export.json").read_text())

    assert figures["graph"] == "flat"
    assert figures["parity"] <= 1e-4
    assert figures["bytes"] == (exported / "export" / "model.onnx").stat().st_size


def test_stage_refuses_a_graph_beyond_parity(context: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is not torch's is not written; nan counts as beyond."""
    made = context("export")
    (made.out / "model.onnx").unlink()
    monkeypatch.setattr(export, "parity", lambda *_: float("nan"))
    with pytest.raises(StageError, match="from torch"):
        export.run(made)

    assert not (made.out / "model.onnx").exists()


def test_random_feeds_have_a_full_row_and_ragged_ones() -> None:
    """The parity inputs exercise the mask: lengths differ and nothing but padding is masked."""
    feeds = export.random_feeds(8, 24, 100, np.random.default_rng(0))
    lengths = feeds["attention_mask"].sum(axis=1)

    assert lengths[0] == 24
    assert len(set(lengths)) > 2
    assert not feeds["input_ids"][feeds["attention_mask"] == 0].any()
