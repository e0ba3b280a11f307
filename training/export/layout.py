"""Says where the weights of an int8 encoder lie in its ONNX file, for engines that compute it without ONNX.

Knows the graphs that training.export.flat and training.export.int8 make; does not know who reads the weights, or how.
Invariant: a layout is returned only for a graph whose every operator is one of the encoder's; else None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bundle.layout import LINEARS, NORMS, EncoderLayout, TensorLocation

_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}
_ACTIVATIONS = {"Gelu": "gelu", "Relu": "relu"}
_POOLED = {"Tanh": "tanh", "Relu": "relu"}
_LINEAR = "MatMulIntegerToFloat"
_WEIGHT = ".weight.integer"


def encoder_layout(graph: bytes) -> EncoderLayout | None:
    """Return the layout of a flat int8 graph with attention as one operator; None for any other graph."""
    model = onnx.load_from_string(graph)
    nodes = list(model.graph.node)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    linears = {
        node.input[1].removesuffix(_WEIGHT): node
        for node in nodes
        if node.op_type == _LINEAR and node.input[1].endswith(_WEIGHT)
    }
    depth = sum(name.endswith(".contract") for name in linears)
    counts = Counter(node.op_type for node in nodes)
    wanted = {f"layers.{layer}.{name}" for layer in range(depth) for name in LINEARS}
    activation = _ACTIVATIONS.get(_reader(nodes, linears, f"layers.{depth - 1}.expand"), "")
    pooled = _POOLED.get(next((n.op_type for n in nodes[-5:] if n.op_type in _POOLED), ""), "")
    positions = {node.op_type for node in nodes if "embeddings.positions" in node.input}
    if (
        not depth
        or linears.keys() != wanted
        or not activation
        or not pooled
        or positions != {"Slice"}  # of the first so many; others number the tokens that are not padding
        or "distances" in tensors
        or "embeddings.words.integer" not in tensors
        or counts["Attention"] != depth
        or counts["LayerNormalization"] != 2 * depth + 1
        or counts["MatMul"] != 2  # the head's
    ):
        return None
    places: dict[str, TensorLocation] = {}
    for name, tensor in _roles(nodes, linears, depth):
        if tensor not in tensors:
            continue  # an input that needs no inverse, an architecture without token types
        raw = numpy_helper.to_array(tensors[tensor]).tobytes()
        shape, dtype = tuple(tensors[tensor].dims), _DTYPES[tensors[tensor].data_type]
        places[name] = TensorLocation(offset=graph.find(raw), shape=shape, dtype=dtype)
    if min(place.offset for place in places.values()) < 0:
        return None  # written as something else than bytes
    types = places.get("embeddings.types")
    if places["classifier.weight"].shape[1:] != (1,) or (types is not None and types.shape[0] != 2):
        return None  # several classes, of which the graph makes one logit, or more types than a pair has
    attention = next(node for node in nodes if node.op_type == "Attention")
    return EncoderLayout(
        layers=depth,
        heads=_attribute(attention, "q_num_heads"),
        activation=activation,
        pooled=pooled,
        epsilon=float(np.float32(_attribute(_norm(nodes), "epsilon"))),
        tensors=places,
    )


def _roles(nodes: list[NodeProto], linears: dict[str, NodeProto], depth: int) -> Iterator[tuple[str, str]]:
    """Every weight's role in the layout, and its name in the graph, where equal ones may be the same."""
    yield "embeddings.words", "embeddings.words.integer"
    yield "embeddings.word_scales", "embeddings.words.scale"
    yield "embeddings.positions", "embeddings.positions"
    yield "embeddings.types", "embeddings.types"
    norms = ["embeddings.norm", *(f"layers.{layer}.{norm}" for layer in range(depth) for norm in NORMS)]
    for name, node in zip(norms, (n for n in nodes if n.op_type == "LayerNormalization"), strict=True):
        yield f"{name}.weight", node.input[1]
        yield f"{name}.bias", node.input[2]
    for name, node in zip(("pooler", "classifier"), (n for n in nodes if n.op_type == "MatMul"), strict=True):
        yield f"{name}.weight", node.input[1]
        added = next(n for n in nodes if node.output[0] in n.input)
        yield f"{name}.bias", next(each for each in added.input if each != node.output[0])
    for name, node in linears.items():
        _, weight, step, scale, zero, _, bias = node.input
        yield f"{name}.weight", weight
        yield f"{name}.scale", scale
        yield f"{name}.bias", bias
        yield f"{name}.step", step
        yield f"{name}.zero", zero
        yield f"{name}.inverse", step.removesuffix(".step") + ".inverse"


def _reader(nodes: list[NodeProto], linears: dict[str, NodeProto], name: str) -> str:
    """The operator that reads a linear's output, if it is one alone."""
    if name not in linears:
        return ""
    readers = [node for node in nodes if linears[name].output[0] in node.input]
    if len(readers) != 1 or any(
        told.s == b"tanh" for told in readers[0].attribute
    ):  # another function than Gelu's own
        return ""
    return str(readers[0].op_type)


def _norm(nodes: list[NodeProto]) -> NodeProto:
    return next(node for node in nodes if node.op_type == "LayerNormalization")


def _attribute(node: NodeProto, name: str) -> float | int:
    return next(helper.get_attribute_value(found) for found in node.attribute if found.name == name)
