"""Makes the graph that a student of a given shape would be served with, its weights random. Needs torch.

Knows the training pipeline's export and quantisation; does not know speed.
Invariant: the same shape gives the same graph; scores mean nothing, times do.
"""

import re
from collections.abc import Sequence

import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.engine.bound import Shape
from bundle.manifest import TextContract
from bundle.rows import Row
from training.export.export import to_onnx
from training.export.flat import FlatBert
from training.export.int8 import quantize

_HEADS = {384: 12}  # MiniLM's; 64 a head otherwise
_OPSET = 20


def parse_shape(name: str) -> Shape:
    """Read a name such as L4-H256; the feed-forward is four times as wide."""
    match = re.fullmatch(r"L(\d{1,2})-H(\d{2,4})", name)
    if match is None:
        raise ValueError(f"expected a shape such as L4-H256, got {name!r}")
    layers, hidden = map(int, match.groups())
    return Shape(layers, hidden, 4 * hidden)


def int8_graph(shape: Shape, contract: TextContract, rows: Sequence[Row]) -> bytes:
    """Return the static int8 graph of that shape, calibrated on the rows."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=contract.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=_HEADS.get(shape.hidden, max(1, shape.hidden // 64)),
        intermediate_size=shape.intermediate,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    graph = to_onnx(FlatBert(model, fused=True).eval(), _OPSET).SerializeToString()
    return quantize(graph, rows, contract)
