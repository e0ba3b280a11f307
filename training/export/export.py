"""Exports the student as an fp32 ONNX graph, in half precision too, and proves that they compute what torch computes.

Knows the model and ONNX; does not know data.
Invariant: nothing is written unless logits agree at several shapes and mask lengths, fp32 with torch, fp16 with fp32.
"""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bundle.verify import INPUT_NAMES, OUTPUT_NAME, Session
from training.errors import StageError
from training.export.architectures import unsupported
from training.export.classes import ExpectedGain
from training.export.flat import FlatBert
from training.export.optimum_export import export_by_optimum
from training.models.hub import load_model
from training.models.runtime import OrtSession
from training.sections.export import ExportRecipe
from training.stages import Context, Metrics

SHAPES = ((1, 8), (1, 24), (3, 16), (16, 32), (5, 72))  # batch and sequence of the parity check
LONGEST = 512  # tokens of a row, where the model's positions allow as many


class PlainGraph(nn.Module):
    """Any sequence-classification model of one label, with our inputs and output."""

    def __init__(self, model: nn.Module, relevance: ExpectedGain | None = None) -> None:
        """Wrap the model; type ids are passed on only if it takes them. `relevance` makes one logit of its classes."""
        super().__init__()
        self.model = model
        self.relevance = relevance
        parameters = inspect.signature(model.forward).parameters
        self.takes_types = "token_type_ids" in parameters and getattr(model.config, "type_vocab_size", 0) > 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the relevance logit of every row."""
        types = {"token_type_ids": token_type_ids} if self.takes_types else {}
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits[:, 0] if self.relevance is None else self.relevance(logits)


def load_student(folder: Path) -> PreTrainedModel:
    """The student with eager attention in fp32 and evaluation mode; StageError if it has several labels."""
    model = load_model(
        AutoModelForSequenceClassification, str(folder), dtype=torch.float32, attn_implementation="eager"
    )
    if model.config.num_labels != 1:
        raise StageError(
            f"the model has {model.config.num_labels} labels, and only the logit of a single one is relevance"
        )
    return model.eval()


def graph_module(
    model: nn.Module, graph: str, *, fused: bool = False, relevance: ExpectedGain | None = None
) -> nn.Module:
    """The module to export: `flat` where the architecture has it, else the model as it is.

    `fused` is for the flat one alone: attention as one operator. `relevance` makes one logit of several classes.
    """
    if graph == "flat" and not unsupported(model, 1 if relevance is None else relevance.classes):
        return FlatBert(model, fused=fused, relevance=relevance).eval()
    return PlainGraph(model, relevance).eval()


def to_onnx(module: nn.Module, opset: int, longest: int = LONGEST) -> onnx.ModelProto:
    """Trace the module with free batch and sequence; one self-contained, checked graph.

    Its opset is the one asked for, or the module's `least_opset` if that is later. Rows have up to `longest` tokens.
    """
    example = {name: torch.ones(2, 16, dtype=torch.int64) for name in INPUT_NAMES}
    longest = min(getattr(module, "longest", longest), longest)
    axes = {
        0: torch.export.Dim("batch", min=1, max=4096),
        1: torch.export.Dim("sequence", min=2, max=longest),
    }
    with warnings.catch_warnings():  # the exporter warns about its own internals
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (),
            kwargs=example,
            input_names=list(INPUT_NAMES),
            output_names=[OUTPUT_NAME],
            dynamic_shapes=dict.fromkeys(INPUT_NAMES, axes),
            opset_version=max(opset, getattr(module, "least_opset", opset)),
            dynamo=True,
            external_data=False,
            optimize=True,
            verbose=False,
        )
    model = program.model_proto
    tidy(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def opset_of(graph: bytes) -> int:
    """Return the version of ONNX's own operators that a graph asks for."""
    return next(entry.version for entry in onnx.load_from_string(graph).opset_import if not entry.domain)


def tidy(model: onnx.ModelProto) -> None:
    """Drop what no runtime needs: shapes recorded for constants, source locations, metadata.

    The recorded shapes of initializers do more than waste space: the quantizer of ONNX Runtime up to
    1.31 takes them for inferred ones and fails.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [info for info in model.graph.value_info if info.name not in constants]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    ):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""


def random_feeds(
    batch: int, sequence: int, vocabulary: int, draws: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Feeds [batch, sequence] with rows of random length, at least one of them full."""
    lengths = draws.integers(2, sequence + 1, batch)
    lengths[0] = sequence
    columns = np.arange(sequence)
    mask = columns < lengths[:, None]
    ids = np.where(mask, draws.integers(1, vocabulary, (batch, sequence)), 0)
    types = mask & (columns >= lengths[:, None] // 2)
    return {
        name: values.astype(np.int64) for name, values in zip(INPUT_NAMES, (ids, mask, types), strict=True)
    }


@torch.inference_mode()
def parity(model: PreTrainedModel, graph: bytes, seed: int = 0) -> float:
    """Largest |logit| difference between torch and the graph over `SHAPES` and random lengths; nan if one is."""
    session, plain, draws = OrtSession(graph), PlainGraph(model), np.random.default_rng(seed)
    worst = []
    for batch, sequence in SHAPES:
        feeds = random_feeds(batch, sequence, model.config.vocab_size, draws)
        expected = plain(**{name: torch.from_numpy(values) for name, values in feeds.items()}).numpy()
        worst.append(np.abs(session.run(feeds) - expected).max())
    return float(np.max(worst))  # the built-in max drops nan


def to_half(graph: bytes) -> bytes:
    """The graph with float16 weights and arithmetic, its inputs and its float32 logits as they were.

    LayerNormalization still takes its mean and variance in float32 (stash_type), and the mask's -1e4 fits float16.
    """
    model = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    tidy(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def difference(one: Session, other: Session, vocabulary: int, seed: int = 0) -> float:
    """Largest |logit| difference between two graphs over `SHAPES` and random lengths; nan if a logit is nan."""
    draws = np.random.default_rng(seed)
    feeds = [random_feeds(batch, sequence, vocabulary, draws) for batch, sequence in SHAPES]
    return float(np.max([np.abs(one.run(each) - other.run(each)).max() for each in feeds]))  # max() drops nan


def run(context: Context) -> Metrics:
    """Write model.onnx, model.fp16.onnx if asked for, and export.json; StageError if parity is not reached."""
    recipe = context.recipe.export
    model = load_student(context.inputs("distil"))
    graph, used = _exported(model, recipe, context)
    worst = parity(model, graph, context.seed)
    if not worst <= recipe.parity:
        raise StageError(f"the ONNX graph is {worst:.2e} from torch, allowed is {recipe.parity:.0e}")
    files = {"model.onnx": graph}
    figures: dict[str, float | int | str] = {
        "graph": used,
        "opset": opset_of(graph),
        "parity": worst,
        "bytes": len(graph),
    }
    if recipe.fp16:
        half = files["model.fp16.onnx"] = to_half(graph)
        far = difference(OrtSession(graph), OrtSession(half), model.config.vocab_size, context.seed)
        if not far <= recipe.fp16_parity:  # nan, from an overflow, is refused too
            raise StageError(f"the fp16 graph is {far:.2e} from fp32, allowed is {recipe.fp16_parity:.0e}")
        figures |= {"fp16_parity": far, "fp16_bytes": len(half)}
    for name, content in files.items():
        (context.out / name).write_bytes(content)
    (context.out / "export.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return figures


def _exported(model: PreTrainedModel, recipe: ExportRecipe, context: Context) -> tuple[bytes, str]:
    """The fp32 graph by the recipe's exporter, and what kind of graph it is."""
    if recipe.exporter == "optimum":
        made = export_by_optimum(model, recipe.opset)
        tidy(made)
        onnx.checker.check_model(made, full_check=True)
        return made.SerializeToString(), "optimum"
    fused = recipe.fused_attention and not recipe.fp16  # not every GPU's runtime has the operator
    module = graph_module(model, recipe.graph, fused=fused)
    used = "flat" if isinstance(module, FlatBert) else "plain"
    if used != recipe.graph:
        context.log("export", note=f"plain graph: {unsupported(model)}")
    return to_onnx(module, recipe.opset).SerializeToString(), used
