"""Export: parity with torch, the promised signature, and refusal when either is missed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import onnx  # noqa: E402

from tests.training.families import FAMILIES, OTHERS, make  # noqa: E402
from training.errors import StageError  # noqa: E402
from training.export import export  # noqa: E402
from training.models.runtime import OrtSession  # noqa: E402

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def graphs(exported: Path) -> dict[str, bytes]:
    """The student's flat graph, the same with attention as one operator, and its plain one."""
    model = export.load_student(exported / "distil")
    modules = {name: export.graph_module(model, name) for name in ("flat", "plain")}
    modules["fused"] = export.graph_module(model, "flat", fused=True)
    return {name: export.to_onnx(module, 20).SerializeToString() for name, module in modules.items()}


@pytest.mark.parametrize("name", ["flat", "fused", "plain"])
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


@pytest.mark.parametrize("name", ["flat", "fused", "plain"])
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


def test_each_graph_has_fewer_nodes_than_the_one_before(graphs: dict[str, bytes]) -> None:
    """The flat graph does its work in fewer operators than the plain one, and with attention fused in fewer yet."""
    kinds = {
        name: [node.op_type for node in onnx.load_from_string(graphs[name]).graph.node]
        for name in ("plain", "flat", "fused")
    }

    assert len(kinds["plain"]) > len(kinds["flat"]) > len(kinds["fused"])
    assert ("Attention" in kinds["fused"], "Attention" in kinds["flat"]) == (True, False)
    assert "Softmax" not in kinds["fused"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_fall_back_to_the_plain_graph(tmp_path: Path, name: str) -> None:
    """A model without a flat form exports all the same, within parity."""
    make(name, num_hidden_layers=1, max_position_embeddings=80).save_pretrained(tmp_path)
    model = export.load_student(tmp_path)
    module = export.graph_module(model, "flat")
    graph = export.to_onnx(module, 20).SerializeToString()

    assert isinstance(module, export.PlainGraph)
    assert export.parity(model, graph) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_flat_graph_within_parity(name: str) -> None:
    """Each architecture of the BERT family exports as the flat graph with fused attention, within parity of torch."""
    model = make(name, max_position_embeddings=80)
    module = export.graph_module(model, "flat", fused=True)
    graph = export.to_onnx(module, 20).SerializeToString()

    assert not isinstance(module, export.PlainGraph)
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


@pytest.fixture(scope="module")
def half(graphs: dict[str, bytes]) -> dict[str, bytes]:
    """Both graphs in half precision."""
    return {name: export.to_half(graph) for name, graph in graphs.items()}


@pytest.mark.parametrize("name", ["flat", "plain"])
def test_half_graph_keeps_the_signature(graphs: dict[str, bytes], half: dict[str, bytes], name: str) -> None:
    """Inputs and logits are those of the fp32 graph, and no float32 weight is left inside."""
    before, after = OrtSession(graphs[name]), OrtSession(half[name])
    kinds = {tensor.data_type for tensor in onnx.load_from_string(half[name]).graph.initializer}

    assert (before.inputs, before.outputs) == (after.inputs, after.outputs)
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds


@pytest.mark.parametrize("name", ["flat", "plain"])
def test_half_graph_normalises_in_float32(half: dict[str, bytes], name: str) -> None:
    """Mean and variance of every layer normalisation are taken in float32, as ONNX's stash_type says."""
    norms = [
        node for node in onnx.load_from_string(half[name]).graph.node if node.op_type == "LayerNormalization"
    ]
    told = [{a.name: a.i for a in node.attribute}.get("stash_type", 1) for node in norms]

    assert set(told) == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("name", ["flat", "plain"])
def test_half_graph_is_near_fp32_and_not_equal(
    graphs: dict[str, bytes], half: dict[str, bytes], name: str
) -> None:
    """Logits of order one differ by some hundredths at most, masks and short rows included, and do differ."""
    assert 0 < export.difference(OrtSession(graphs[name]), OrtSession(half[name]), 100) <= 0.05


@pytest.mark.parametrize("broken", [24, 32])
def test_nan_in_any_batch_is_the_difference(graphs: dict[str, bytes], broken: int) -> None:
    """A nan in one batch is not outshone by finite differences in the batches around it."""

    class Overflows(OrtSession):
        """The same graph, with a nan for one length."""

        def run(self, feeds: Any) -> Any:
            logits = super().run(feeds)
            return logits * np.float32("nan") if feeds["input_ids"].shape[1] == broken else logits

    assert np.isnan(export.difference(OrtSession(graphs["flat"]), Overflows(graphs["flat"]), 100))


def test_parity_sees_a_nan(graphs: dict[str, bytes], exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parity with a graph that overflows at one length is nan, which no limit allows."""

    def run(session: Any, feeds: Any) -> Any:
        logits = plain(session, feeds)
        return logits * np.float32("nan") if feeds["input_ids"].shape[1] == 24 else logits

    plain = OrtSession.run
    monkeypatch.setattr(OrtSession, "run", run)

    assert np.isnan(export.parity(export.load_student(exported / "distil"), graphs["flat"]))


def test_stage_writes_a_half_graph_where_asked(context: Make) -> None:
    """With export.fp16 the stage leaves a second graph, about half as large, and its distance to the first."""
    made = context("export", "export.fp16=true", "export.fp16_parity=0.05")
    figures = export.run(made)

    assert figures["fp16_bytes"] == (made.out / "model.fp16.onnx").stat().st_size < 0.75 * figures["bytes"]
    assert 0 < figures["fp16_parity"] <= 0.05


@pytest.mark.parametrize("far", [0.06, float("nan")])
def test_stage_refuses_a_half_graph_far_from_fp32(
    context: Make, monkeypatch: pytest.MonkeyPatch, far: float
) -> None:
    """Over the limit, or overflown to nan, nothing is written."""
    made = context("export", "export.fp16=true", "export.fp16_parity=0.05")
    (made.out / "model.onnx").unlink()
    monkeypatch.setattr(export, "difference", lambda *_: far)
    with pytest.raises(StageError, match="from fp32"):
        export.run(made)

    assert not list(made.out.glob("*.onnx"))


def test_stage_takes_the_other_exporter(context: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """export.exporter = "optimum" exports by Optimum, and its graph is held to torch like ours."""
    seen = []

    def by_optimum(model: Any, opset: int) -> onnx.ModelProto:
        seen.append(opset)
        return export.to_onnx(export.PlainGraph(model).eval(), opset)

    monkeypatch.setattr(export, "export_by_optimum", by_optimum)
    figures = export.run(context("export", "export.exporter=optimum"))

    assert seen == [20]
    assert figures["graph"] == "optimum"
    assert figures["parity"] <= 1e-4


def test_random_feeds_have_a_full_row_and_ragged_ones() -> None:
    """The parity inputs exercise the mask: lengths differ and nothing but padding is masked."""
    feeds = export.random_feeds(8, 24, 100, np.random.default_rng(0))
    lengths = feeds["attention_mask"].sum(axis=1)

    assert lengths[0] == 24
    assert len(set(lengths)) > 2
    assert not feeds["input_ids"][feeds["attention_mask"] == 0].any()
