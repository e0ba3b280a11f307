"""Exports a model by Optimum and gives its graph the signature that bundles promise.

Knows Optimum's exporter, which is in an environment of its own; does not know which models ours covers.
Invariant: int64 input_ids, attention_mask, token_type_ids [batch, sequence] to float32 logits [batch], or StageError.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from bundle.verify import INPUT_NAMES, OUTPUT_NAME
from training.errors import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COLUMN = "logits_column"  # Optimum's logits [batch, 1] under another name
_LAST_AXIS = "logits_column_axis"


def export_by_optimum(model: PreTrainedModel, opset: int) -> onnx.ModelProto:
    """Optimum's graph of a model with one label; StageError where Optimum is missing or cannot export it."""
    try:
        from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415 - only where it is installed
    except ImportError as error:
        raise StageError(
            "optimum is not installed here: run this command in the environment of requirements/optimum.lock"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        try:
            onnx_export_from_model(
                model, folder, opset=opset, task="text-classification", do_validation=False
            )
        except (ValueError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0]
            raise StageError(f"optimum cannot export {type(model).__name__}: {reason}") from error
        graph = onnx.load(Path(folder) / "model.onnx")
    return with_our_signature(graph)


def with_our_signature(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with our inputs, in our order, and logits [batch] instead of [batch, 1].

    An input that the architecture has no use for is declared and read by no node.
    Raises StageError for inputs or outputs that have no counterpart in ours.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {info.name: info for info in graph.input if info.name not in constants}
    foreign = sorted(inputs.keys() - set(INPUT_NAMES))
    wrong = [name for name, info in inputs.items() if info.type.tensor_type.elem_type != TensorProto.INT64]
    if foreign or wrong:
        raise StageError(f"the graph asks for {', '.join(foreign or wrong)}, expected int64 {INPUT_NAMES}")
    _check_output(graph)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_COLUMN if name == OUTPUT_NAME else name for name in names]
    graph.initializer.append(helper.make_tensor(_LAST_AXIS, TensorProto.INT64, [1], [-1]))
    graph.node.append(helper.make_node("Squeeze", [_COLUMN, _LAST_AXIS], [OUTPUT_NAME], "logits_squeeze"))
    del graph.input[:], graph.output[:]
    del graph.value_info[:]  # shapes under the exporter's own dimension names
    for name in INPUT_NAMES:
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch"]))
    return made


def _check_output(graph: onnx.GraphProto) -> None:
    """StageError unless the one output is float32 logits [batch, 1]."""
    told = [
        (
            info.name,
            info.type.tensor_type.elem_type,
            [size.dim_value for size in info.type.tensor_type.shape.dim],
        )
        for info in graph.output
    ]
    if told != [(OUTPUT_NAME, TensorProto.FLOAT, [0, 1])]:  # 0 is a free dimension
        found = ", ".join(f"{name} {shape}" for name, _, shape in told)
        raise StageError(
            f"the graph gives {found}, expected float32 {OUTPUT_NAME} [batch, 1]: one label, not more"
        )
