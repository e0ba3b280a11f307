"""Builds the graph that a plain export of BERT with dynamic int8 gives, its weights random: the yardstick of the guard.

Knows BERT's arithmetic and ONNX; does not know our graphs, texts or speed.
Invariant: the same shape gives the same bytes, whatever becomes of the engine that is measured against it.

It is what most people serve: three-dimensional activations, query, key and value apart, all layers for all tokens, and
ONNX Runtime's dynamic quantisation over it. Scores mean nothing; times do.
"""

import logging
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.engine.bound import Shape

HEAD_SIZE: Final = 32
POSITIONS: Final = 512
OPSET: Final = 20
_EPSILON: Final = 1e-12
_MASKED: Final = -10_000.0
_SPREAD: Final = 0.02  # of weights, as BERT is initialised


def open_baseline(shape: Shape, vocabulary: int, threads: int) -> ort.InferenceSession:
    """Return the dynamic int8 graph in a session as it comes, on so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        plain, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(fp32_graph(shape, vocabulary), plain)
        logging.disable(logging.WARNING)  # the quantiser advises a step that changes nothing here
        quantize_dynamic(plain, int8, weight_type=QuantType.QInt8)
        logging.disable(logging.NOTSET)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        return ort.InferenceSession(int8.read_bytes(), options, providers=["CPUExecutionProvider"])


def fp32_graph(shape: Shape, vocabulary: int) -> onnx.ModelProto:
    """Return the graph: int64 input_ids, attention_mask, token_type_ids [batch, sequence] to float32 logits [batch, 1]."""
    return _Graph(shape, vocabulary).model()


class _Graph:
    """Nodes and weights in the making; each method adds some and returns the name of what they compute."""

    def __init__(self, shape: Shape, vocabulary: int) -> None:
        self._shape = shape
        self._nodes: list[NodeProto] = []
        self._tensors: list[TensorProto] = []
        self._rng = np.random.default_rng(0)
        self._vocabulary = vocabulary

    def model(self) -> onnx.ModelProto:
        rows = self._embed()
        mask = self._mask()
        for _ in range(self._shape.layers):
            rows = self._layer(rows, mask)
        first = self._add("Gather", rows, self._constant(np.int64(0)), axis=1)
        hidden = self._shape.hidden
        pooled = self._add("Tanh", self._linear(first, hidden, hidden))
        logits = self._linear(pooled, hidden, 1)
        self._nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        pair = ["batch", "sequence"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, pair)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])]
        graph = helper.make_graph(self._nodes, "baseline", inputs, outputs, self._tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model)
        return model

    def _embed(self) -> str:
        hidden = self._shape.hidden
        words = self._add("Gather", self._weight(self._vocabulary, hidden), "input_ids")
        types = self._add("Gather", self._weight(2, hidden), "token_type_ids")
        length = self._add("Gather", self._add("Shape", "input_ids"), self._constant(np.int64(1)))
        zero, one = self._constant(np.int64(0)), self._constant(np.int64(1))
        places = self._add("Gather", self._weight(POSITIONS, hidden), self._add("Range", zero, length, one))
        return self._norm(self._add("Add", self._add("Add", words, types), places))

    def _mask(self) -> str:
        mask = self._add("Cast", "attention_mask", to=TensorProto.FLOAT)
        wide = self._add("Unsqueeze", mask, self._constant(np.int64([1, 2])))
        hidden = self._add("Sub", self._constant(np.float32(1.0)), wide)
        return self._add("Mul", hidden, self._constant(np.float32(_MASKED)))

    def _layer(self, rows: str, mask: str) -> str:
        hidden, inner = self._shape.hidden, self._shape.intermediate
        query, key, value = (self._heads(self._linear(rows, hidden, hidden)) for _ in range(3))
        scores = self._add("MatMul", query, self._add("Transpose", key, perm=[0, 1, 3, 2]))
        scores = self._add("Div", scores, self._constant(np.float32(HEAD_SIZE**0.5)))
        weights = self._add("Softmax", self._add("Add", scores, mask), axis=-1)
        mixed = self._add("Transpose", self._add("MatMul", weights, value), perm=[0, 2, 1, 3])
        mixed = self._add("Reshape", mixed, self._constant(np.int64([0, 0, hidden])))
        rows = self._norm(self._add("Add", self._linear(mixed, hidden, hidden), rows))
        grown = self._add("Gelu", self._linear(rows, hidden, inner))
        return self._norm(self._add("Add", self._linear(grown, inner, hidden), rows))

    def _heads(self, rows: str) -> str:
        """[batch, sequence, hidden] -> [batch, heads, sequence, size]."""
        apart = self._add("Reshape", rows, self._constant(np.int64([0, 0, -1, HEAD_SIZE])))
        return self._add("Transpose", apart, perm=[0, 2, 1, 3])

    def _linear(self, rows: str, width: int, out: int) -> str:
        product = self._add("MatMul", rows, self._weight(width, out))
        return self._add("Add", product, self._constant(np.zeros(out, np.float32)))

    def _norm(self, rows: str) -> str:
        hidden = self._shape.hidden
        ones, zeros = np.ones(hidden, np.float32), np.zeros(hidden, np.float32)
        return self._add(
            "LayerNormalization", rows, self._constant(ones), self._constant(zeros), epsilon=_EPSILON
        )

    def _weight(self, *sides: int) -> str:
        return self._constant(self._rng.normal(0.0, _SPREAD, sides).astype(np.float32))

    def _constant(self, values: NDArray[np.float32 | np.int64] | np.float32 | np.int64) -> str:
        name = f"constant_{len(self._tensors)}"
        self._tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name
