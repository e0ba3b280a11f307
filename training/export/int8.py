"""Rewrites an fp32 graph into static int8: u8 activations, s8 weights, every scale a constant.

Knows ONNX graphs and token rows; does not know labels, quality or recipes.
Invariant: no scale is computed from a batch, so a pair's score is bit for bit the same in any batch.

Each product x W + b by constants becomes QuantizeLinear(x / r) and MatMulIntegerToFloat with (r W). Dividing
x by r and multiplying W by it changes nothing in real numbers, but an activation with one loud channel no
longer spends the 256 steps of all channels on it: SmoothQuant, see training.export.smooth. Where x is made of a linear's
outputs channel by channel, those are divided by r ahead, which costs nothing.
Weight scales are per output channel; the mean error that rounding W adds is taken off the bias
(Nagel et al., ICCV 2019). Embedding tables become s8 with one scale per row.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bundle.manifest import TextContract
from bundle.rows import Row, assemble
from training.export.smooth import TINY, smoothing, weight_scale
from training.models.batching import batches_of_one_length

Floats = NDArray[np.float32]

KEPT_FP32 = ("pooler", "classifier")  # a small head, and the scores of one list lie close together
_BY_CHANNEL = {"Attention": 2, "Relu": 0, "Reshape": 0}  # which input a channel of the output comes from
BATCH_ROWS = 64  # of one length, in a run of the fp32 graph
TABLE_ROWS = 1024  # smaller embedding tables are not worth an operator


@dataclass(frozen=True, slots=True)
class Linear:
    """A MatMul by a constant with the Add of its bias: x [rows, in] -> `output` [rows, out]."""

    name: str  # of the weight
    source: str
    output: str
    weight: Floats  # [in, out]
    bias: Floats  # [out]
    nodes: tuple[str, ...]  # outputs of the nodes it stands for


@dataclass(frozen=True, slots=True)
class Seen:
    """What calibration saw of the channels of one tensor, each [channels]."""

    low: Floats
    high: Floats
    mean: Floats

    def peak(self) -> Floats:
        """Largest |x| of each channel."""
        largest: Floats = np.maximum(np.abs(self.low), np.abs(self.high))
        return largest


def quantize(
    graph: bytes,
    rows: Sequence[Row],
    contract: TextContract,
    *,
    reduce_range: bool = True,
    smooth: float = 0.9,
) -> bytes:
    """Return the int8 graph, calibrated on real token rows.

    `reduce_range` makes scores exact on CPUs without VNNI too, see `weight_scale`; `smooth` in [0, 1] says
    how much of the difficulty moves from activations into weights, see `smoothing`.
    """
    model = onnx.load_from_string(graph)
    linears = find_linears(model)
    if not linears:
        raise ValueError("the graph has no matrix product by a constant")
    readers: dict[str, list[Linear]] = {}
    for linear in linears:
        readers.setdefault(linear.source, []).append(linear)
    seen = calibrate(graph, sorted(readers), rows, contract)
    divisors = {
        source: smoothing(seen[source].peak(), [reader.weight for reader in readers[source]], smooth)
        for source in readers
    }
    makers = find_makers(model, linears)
    replaced: dict[str, list[NodeProto]] = {}
    constants: list[TensorProto] = []
    for source, members in readers.items():
        made = _quantized_source(source, seen[source], divisors[source], ahead=source in makers.values())
        replaced[members[0].nodes[0]] = list(made.nodes)
        constants += made.constants
        for linear in members:
            after = divisors[makers[linear.name]] if linear.name in makers else np.float32(1)
            divided = replace(linear, weight=linear.weight / after, bias=linear.bias / after)
            node, new = _integer_linear(divided, made, reduce_range=reduce_range)
            replaced.setdefault(linear.nodes[0], []).append(node)
            replaced |= {output: [] for output in linear.nodes[1:]}
            constants += new
    for node, table in _tables(model):
        nodes, new = _integer_table(node, table)
        replaced[node.output[0]] = nodes
        constants += new
    _rewrite(model, replaced, constants)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def find_linears(model: onnx.ModelProto) -> list[Linear]:
    """Every MatMul by a constant matrix outside the head, with its bias."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    users: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        weight = values.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.ndim != 2 or any(kept in node.input[1] for kept in KEPT_FP32):
            continue
        bias, outputs = _bias(node.output[0], users, values)
        found.append(
            Linear(
                name=node.input[1],
                source=node.input[0],
                output=outputs[-1],
                weight=weight,
                bias=np.zeros(weight.shape[1], np.float32) if bias is None else bias,
                nodes=outputs,
            )
        )
    return found


def find_makers(model: onnx.ModelProto, linears: Sequence[Linear]) -> dict[str, str]:
    """Sources whose channels are a linear's outputs, by its name, so that it may divide them ahead.

    Attention takes means of the rows of its values, each channel by itself; ReLU lets a positive factor through.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    outputs = {linear.output: linear.name for linear in linears}
    found = {}
    for source in dict.fromkeys(linear.source for linear in linears):
        name = source
        while name in makers and makers[name].op_type in _BY_CHANNEL:
            node = makers[name]
            name = node.input[_BY_CHANNEL[node.op_type]]
            if uses[name] != 1:  # somebody else would read it divided
                break
        if name in outputs and uses[name] == 1:
            found[outputs[name]] = source
    return found


def calibrate(
    graph: bytes, names: Sequence[str], rows: Sequence[Row], contract: TextContract
) -> dict[str, Seen]:
    """Run the fp32 graph on rows of equal length, without any padding, and note each channel's range."""
    model = onnx.load_from_string(graph)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    total: dict[str, NDArray[np.float64]] = {}
    counts = dict.fromkeys(names, 0)
    for _, places in batches_of_one_length([len(row) for row in rows], BATCH_ROWS):
        feeds = assemble([rows[place] for place in places], contract.template)
        for name, found in zip(names, session.run(names, feeds), strict=True):
            values = found.reshape(-1, found.shape[-1])
            low[name] = np.minimum(low.get(name, np.inf), values.min(axis=0))
            high[name] = np.maximum(high.get(name, -np.inf), values.max(axis=0))
            total[name] = total.get(name, 0.0) + values.sum(axis=0, dtype=np.float64)
            counts[name] += len(values)
    return {
        name: Seen(low[name], high[name], (total[name] / counts[name]).astype(np.float32)) for name in names
    }


@dataclass(frozen=True, slots=True)
class _Source:
    """An activation made u8 once for all products that read it."""

    name: str
    nodes: list[NodeProto]
    constants: list[TensorProto]
    divisors: Floats  # [channels], r
    mean: Floats  # [channels], of x / r


def _quantized_source(name: str, seen: Seen, divisors: Floats, *, ahead: bool) -> _Source:
    """Make x / r u8; `ahead` says that the graph's x is divided already."""
    low, high = min(0.0, float((seen.low / divisors).min())), max(0.0, float((seen.high / divisors).max()))
    step = np.float32(max(high - low, 1e-6) / 255)
    constants = {"step": step, "zero": np.uint8(round(-low / float(step)))}
    nodes = []
    scaled = name
    if not ahead:
        constants["inverse"] = 1 / divisors
        scaled = f"{name}.scaled"
        nodes = [helper.make_node("Mul", [name, f"{name}.inverse"], [scaled])]
    nodes.append(helper.make_node("QuantizeLinear", [scaled, f"{name}.step", f"{name}.zero"], [f"{name}.u8"]))
    return _Source(name, nodes, _tensors(name, constants), divisors, seen.mean / divisors)


def _integer_linear(
    linear: Linear, source: _Source, *, reduce_range: bool
) -> tuple[NodeProto, list[TensorProto]]:
    weight = linear.weight * source.divisors[:, None]
    scale = weight_scale(weight, reduce_range=reduce_range)
    integer = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
    bias = linear.bias + source.mean @ (weight - integer * scale)
    name, activation = linear.name, source.name
    inputs = [f"{activation}.u8", f"{name}.integer", f"{activation}.step"]
    inputs += [f"{name}.scale", f"{activation}.zero", "", f"{name}.bias"]
    node = helper.make_node(
        "MatMulIntegerToFloat",
        inputs,
        [linear.output],
        domain="com.microsoft",
    )
    return node, _tensors(name, {"integer": integer, "scale": scale, "bias": bias.astype(np.float32)})


def _integer_table(node: NodeProto, table: Floats) -> tuple[list[NodeProto], list[TensorProto]]:
    name, ids = node.input
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, TINY)
    constants = {"integer": np.rint(table / scale).astype(np.int8), "scale": scale}
    nodes = [
        helper.make_node("Gather", [f"{name}.integer", ids], [f"{name}.rows"]),
        helper.make_node("Cast", [f"{name}.rows"], [f"{name}.floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}.scale", ids], [f"{name}.scales"]),
        helper.make_node("Mul", [f"{name}.floats", f"{name}.scales"], list(node.output)),
    ]
    return nodes, _tensors(name, constants)


def _tables(model: onnx.ModelProto) -> Iterator[tuple[NodeProto, Floats]]:
    """Gathers of rows from a large constant table."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Gather" or node.input[0] not in values:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        table = numpy_helper.to_array(values[node.input[0]])
        if axis == 0 and table.ndim == 2 and table.dtype == np.float32 and len(table) >= TABLE_ROWS:
            yield node, table


def _bias(
    product: str, users: Mapping[str, list[NodeProto]], values: Mapping[str, NDArray[np.float32]]
) -> tuple[Floats | None, tuple[str, ...]]:
    """The constant vector added to a product, and the outputs of product and sum."""
    following = users.get(product, [])
    if len(following) == 1 and following[0].op_type == "Add":
        other = next((name for name in following[0].input if name != product), "")
        if other in values and values[other].ndim == 1:
            return values[other], (product, following[0].output[0])
    return None, (product,)


def _rewrite(
    model: onnx.ModelProto, replaced: Mapping[str, list[NodeProto]], new: Sequence[TensorProto]
) -> None:
    nodes = [stand_in for node in model.graph.node for stand_in in replaced.get(node.output[0], [node])]
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*constants, *new])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _tensors(name: str, values: Mapping[str, NDArray[Any] | np.generic]) -> list[TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), f"{name}.{key}") for key, value in values.items()]
