"""Writes a bundle from a model's graphs and tokenizer, and proves it by reading it back.

Knows the bundle contract; does not know where the model comes from.
Invariant: a bundle that is left behind has passed the same verification as at service start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import onnx
from tokenizers import Tokenizer

from bundle.manifest import GraphSpec, Manifest, Precision
from bundle.store import Bundle, read_bundle, write_bundle
from bundle.text import PairEncoder
from bundle.verify import GoldenRow, dump_golden, golden_row, verify_bundle
from training.data.golden import golden_pairs
from training.data.lists import JudgedList
from training.evaluate.reference import score_reference
from training.export.layout import encoder_layout
from training.models.runtime import OrtSession

# in the order in which one is the default
GRAPH_FILES: Final[Mapping[Precision, str]] = {
    "int8": "model.int8.onnx",
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
}
GOLDEN_FILE: Final = "golden.jsonl"
TOKENIZER_FILE: Final = "tokenizer.json"
CARD_FILE: Final = "card.md"


@dataclass(frozen=True, slots=True)
class Sample:
    """Lists whose scores live traffic is compared with, and in words which these are."""

    lists: Sequence[JudgedList]
    name: str


def assemble(
    out: Path,
    draft: Manifest,
    *,
    graphs: Mapping[Precision, bytes],
    tokenizer: bytes,
    reference: Sample | None,
    card: Callable[[Manifest], str],
    replace: bool = False,
) -> Bundle:
    """Write `out/<draft.name>/` and return the bundle, verified with every graph; BundleError if it is refused.

    `draft` is the manifest before its files are known: its graphs come from `graph_specs`, its golden rows are
    made here. `card` writes the card of the finished manifest. Another bundle of that name is left alone unless `replace`.
    """
    graph = graphs[draft.default_precision]
    if reference is not None:
        scores = score_reference(draft, tokenizer, graph, reference.lists, reference.name)
        draft = draft.model_copy(update={"reference": scores})
    files = {GRAPH_FILES[precision]: content for precision, content in graphs.items()}
    files |= {TOKENIZER_FILE: tokenizer, GOLDEN_FILE: dump_golden(golden_rows(draft, tokenizer, graph))}
    files[CARD_FILE] = card(draft).encode()
    with TemporaryDirectory() as scratch:
        write_bundle(Path(scratch), draft.name, draft, files)
        bundle = read_bundle(Path(scratch), draft.name)
    for precision in graphs:
        verify_bundle(bundle, OrtSession, precision)
    write_bundle(out, draft.name, bundle.manifest, files, replace=replace)
    return bundle


def graph_specs(graphs: Mapping[Precision, bytes]) -> tuple[GraphSpec, ...]:
    """Return what the manifest says of each graph: its signature, its opset, and where its weights lie."""
    return tuple(_graph_spec(precision, graph) for precision, graph in graphs.items())


def golden_rows(manifest: Manifest, tokenizer: bytes, graph: bytes) -> list[GoldenRow]:
    """Score the golden pairs one at a time with the graph that will serve."""
    session, encoder = OrtSession(graph), PairEncoder(tokenizer, manifest.text)
    return [golden_row(session, encoder, manifest, pair) for pair in golden_pairs()]


def strip_tokenizer(raw: bytes) -> bytes:
    """Return tokenizer.json without the truncation and padding that training left in it."""
    tokenizer = Tokenizer.from_buffer(raw)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.to_str().encode()


def _graph_spec(precision: Precision, graph: bytes) -> GraphSpec:
    session = OrtSession(graph)
    opset = next(entry.version for entry in onnx.load_from_string(graph).opset_import if not entry.domain)
    return GraphSpec(
        file=GRAPH_FILES[precision],
        precision=precision,
        opset=opset,
        inputs=session.inputs,
        outputs=session.outputs,
        layout=encoder_layout(graph),
    )
