"""Makes one model in the two forms that are compared on a GPU: a Hugging Face checkpoint, and a bundle with an fp16 graph.

Knows checkpoints, our export and the bundle; does not know GPUs, speed or lists.
Invariant: both forms have the same weights and tokenizer, and the bundle's golden scores come from its fp32 graph.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import BertConfig, BertForSequenceClassification

from bundle import Bundle, PairEncoder
from bundle.manifest import GraphSpec, Manifest
from bundle.store import write_bundle
from bundle.verify import GoldenRow, dump_golden, golden_row, read_golden
from training.export.checkpoint import write_checkpoint, write_tokenizer
from training.export.export import graph_module, load_student, to_half, to_onnx
from training.models.runtime import OrtSession

CHECKPOINT: Final = "checkpoint"
NAME: Final = "measured"
_OPSET: Final = 20
_TOLERANCE: Final = 0.02  # of a score in half precision, on whatever computes it
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Size:
    """Layers and widths of a BERT encoder."""

    layers: int
    hidden: int
    heads: int
    inner: int


SIZES: Final = {"bert-base": Size(12, 768, 12, 3_072), "small": Size(2, 64, 2, 128)}
"""Sizes that are made with random weights: speed does not ask what they are. `small` is for trying the program."""


def make_model(name: str, bundle: Bundle, folder: Path) -> None:
    """Write `<folder>/checkpoint` and the bundle `<folder>/measured`: the bundle's own model, or one of `SIZES`."""
    checkpoint = folder / CHECKPOINT
    if name in SIZES:
        _write_random(SIZES[name], bundle, checkpoint)
    else:
        write_checkpoint(bundle, checkpoint)
    model = to_onnx(graph_module(load_student(checkpoint), "flat"), _OPSET)
    _write_bundle(model.SerializeToString(), bundle, folder)


def _write_random(size: Size, bundle: Bundle, checkpoint: Path) -> None:
    torch.manual_seed(_SEED)
    text = bundle.manifest.text
    config = BertConfig(
        vocab_size=text.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=max(512, text.max_length),
        pad_token_id=text.template.pad_id,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(checkpoint)
    write_tokenizer(bundle, checkpoint)


def _write_bundle(graph: bytes, source: Bundle, folder: Path) -> None:
    """Write a bundle like `source` around another graph, in half precision alone."""
    manifest, half = source.manifest, to_half(graph)
    golden = _golden(OrtSession(graph), source)
    spec = GraphSpec(
        file="model.fp16.onnx",
        precision="fp16",
        opset=_OPSET,
        inputs=manifest.graphs[0].inputs,
        outputs=manifest.graphs[0].outputs,
    )
    changed: Manifest = manifest.model_copy(
        update={
            "name": NAME,
            "graphs": (spec,),
            "default_precision": "fp16",
            "golden": manifest.golden.model_copy(update={"rows": len(golden), "tolerance": _TOLERANCE}),
        }
    )
    files = {each: content for each, content in source.files.items() if not each.endswith(".onnx")}
    files = {each: content for each, content in files.items() if each != "manifest.json"}
    files |= {spec.file: half, manifest.golden.file: dump_golden(golden)}
    write_bundle(folder, NAME, changed, files, replace=True)


def _golden(session: OrtSession, source: Bundle) -> list[GoldenRow]:
    """Return the golden pairs of `source` with the scores that this graph gives them."""
    manifest = source.manifest
    recorded = read_golden(source.files[manifest.golden.file])
    encoder = PairEncoder(source.files[manifest.tokenizer], manifest.text)
    return [golden_row(session, encoder, manifest, (pair.query, pair.product)) for pair in recorded]
