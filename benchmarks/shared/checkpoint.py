"""Writes a bundle's model as the fp32 checkpoint folder that other rerankers read.

Knows the graphs that training makes, and the names of Hugging Face's BERT; does not know peers or speed.
Invariant: the checkpoint has the weights that the graph holds; of an int8 graph they are what its integers stand for, so
the two differ by the rounding of activations alone.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from safetensors.numpy import save_file

from bundle import Bundle

Floats = NDArray[np.float32]
Tensors = dict[str, Floats]
_DENSE: Final = {
    "project": "attention.output.dense",
    "expand": "intermediate.dense",
    "contract": "output.dense",
}
_NORMS: Final = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


def write_checkpoint(bundle: Bundle, folder: Path) -> None:
    """Write config, weights and tokenizer of a bundle's model; ValueError if its graph is not of the flat BERT."""
    folder.mkdir(parents=True, exist_ok=True)
    offered = [graph.precision for graph in bundle.manifest.graphs]
    graph = bundle.manifest.graph("fp32" if "fp32" in offered else None)
    tensors, config = read_graph(bundle.files[graph.file])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    write_tokenizer(bundle, folder)


def write_tokenizer(bundle: Bundle, folder: Path) -> None:
    """Write the bundle's tokenizer with the files beside it that libraries expect; pairs are cut at its length."""
    contract = bundle.manifest.text
    tokenizer = json.loads(bundle.files[bundle.manifest.tokenizer])
    names = {
        token["content"].strip("[]").lower() + "_token": token["content"]
        for token in tokenizer["added_tokens"]
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "special_tokens_map.json", names)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": contract.max_length}
    _write_json(folder / "tokenizer_config.json", {**names, **own, "model_input_names": inputs})


def read_graph(graph: bytes) -> tuple[Tensors, dict[str, Any]]:
    """Return the weights by the names of BertForSequenceClassification, and its configuration."""
    model = onnx.load_from_string(graph)
    try:
        return _read(model)
    except (KeyError, StopIteration) as error:
        raise ValueError(f"not the graph of a flat BERT: it has no {error}") from error


def _read(model: onnx.ModelProto) -> tuple[Tensors, dict[str, Any]]:
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    linears = _linears(model, values, makers)
    layers = sum(name.endswith(".expand") for name in linears)
    hidden, inner = linears["layers.0.expand"][0].shape
    heads = _heads(model, values, makers)
    own = {name.removeprefix("embeddings."): value for name, value in values.items()}
    tensors: Tensors = {}
    for layer in range(layers):
        tensors |= _layer(f"layers.{layer}", f"bert.encoder.layer.{layer}", linears, values, heads)
    tensors |= _dense("bert.pooler.dense", values["pooler.weight"], values["pooler.bias"])
    tensors |= _dense("classifier", values["classifier.weight"], values["classifier.bias"])
    words = own["words"] if "words" in own else own["words.integer"] * own["words.scale"]
    tables = {"word": words, "position": own["positions"], "token_type": own["types"]}
    for kind, table in tables.items():
        tensors[f"bert.embeddings.{kind}_embeddings.weight"] = np.ascontiguousarray(table, np.float32)
    tensors |= _norm("bert.embeddings.LayerNorm", "norm", own)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "id2label": {"0": "LABEL_0"},
        "intermediate_size": inner,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": _epsilon(model),
        "max_position_embeddings": len(tables["position"]),
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "type_vocab_size": len(tables["token_type"]),
        "vocab_size": len(words),
    }
    return tensors, config


def _linears(
    model: onnx.ModelProto, values: Mapping[str, NDArray[Any]], makers: Mapping[str, NodeProto]
) -> dict[str, tuple[Floats, Floats]]:
    """Return weight [in, out] and bias [out] of every product, in fp32 as it stands or out of integers."""
    found = {
        name.removesuffix(".weight"): (value, values[name.removesuffix("weight") + "bias"])
        for name, value in values.items()
        if name.startswith("layers.") and name.endswith(".weight") and value.ndim == 2
    }
    for node in model.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            activation, integer, step, scale, *_, bias = node.input
            weight = values[integer].astype(np.float32) * values[scale]
            source, own_step = makers[activation].input[:2]  # of what makes activations integer
            factors = values[step] / values[own_step]
            divided = makers[source]
            if divided.op_type == "Mul" and divided.input[1] in values:
                factors = factors * values[divided.input[1]]
            weight = weight * np.broadcast_to(factors, len(weight))[:, None]
            found[integer.removesuffix(".weight.integer")] = (weight, values[bias])
    return found


def _layer(
    ours: str,
    theirs: str,
    linears: Mapping[str, tuple[Floats, Floats]],
    values: Mapping[str, NDArray[Any]],
    heads: int,
) -> Tensors:
    """Return one layer's tensors; its query was stored with the scale of attention folded in."""
    if f"{ours}.qkv" in linears:
        parts = _split(*linears[f"{ours}.qkv"], 3)
    elif f"{ours}.key_value" in linears:
        parts = [linears[f"{ours}.query"], *_split(*linears[f"{ours}.key_value"], 2)]
    else:
        parts = [linears[f"{ours}.{name}"] for name in ("query", "key", "value")]
    (query, query_bias), key, value = parts
    scale = np.float32(math.sqrt(len(query_bias) // heads))
    tensors: Tensors = {}
    attention = {"query": (query * scale, query_bias * scale), "key": key, "value": value}
    for name, (weight, bias) in attention.items():
        tensors |= _dense(f"{theirs}.attention.self.{name}", weight, bias)
    for name, their_name in _DENSE.items():
        tensors |= _dense(f"{theirs}.{their_name}", *linears[f"{ours}.{name}"])
    for name, their_name in _NORMS.items():
        tensors |= _norm(f"{theirs}.{their_name}", f"{ours}.{name}", values)
    return tensors


def _split(weight: Floats, bias: Floats, parts: int) -> list[tuple[Floats, Floats]]:
    return list(zip(np.split(weight, parts, axis=1), np.split(bias, parts), strict=True))


def _dense(name: str, weight: Floats, bias: Floats) -> Tensors:
    return {
        f"{name}.weight": np.ascontiguousarray(weight.T, np.float32),
        f"{name}.bias": np.ascontiguousarray(bias, np.float32),
    }


def _norm(theirs: str, ours: str, values: Mapping[str, NDArray[Any]]) -> Tensors:
    return {f"{theirs}.{part}": values[f"{ours}.{part}"] for part in ("weight", "bias")}


def _heads(
    model: onnx.ModelProto, values: Mapping[str, NDArray[Any]], makers: Mapping[str, NodeProto]
) -> int:
    """Return the heads of attention: where it is one operator, what that says.

    Otherwise the last but one side of the shape in which keys reach it, [batch, sequence, ..., heads, size].
    """
    reached: set[str] = set()
    for node in model.graph.node:
        told = {each.name: each.i for each in node.attribute}
        if "q_num_heads" in told or "num_heads" in told:
            return int(told.get("q_num_heads") or told["num_heads"])
        is_product = any(re.match(r"layers\.0\.(qkv|key)\.weight", name) for name in node.input)
        if is_product or (node.op_type in {"Add", "Reshape"} and node.input[0] in reached):
            reached |= set(node.output)
        if node.op_type == "Reshape" and node.input[0] in reached:
            shape = node.input[1]
            sides = values[shape] if shape in values else makers[shape].input
            if len(sides) > 3:
                return int(np.ravel(sides[-2] if shape in values else values[sides[-2]])[0])
    raise KeyError("attention")


def _epsilon(model: onnx.ModelProto) -> float:
    node = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    return next(float(each.f) for each in node.attribute if each.name == "epsilon")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
