"""Puts the finished model into a bundle and proves the bundle by reading it back.

Knows every artefact of a run and the bundle contract; computes nothing new but golden and reference scores.
Invariant: a bundle that this stage leaves behind has passed the same verification as at service start.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
from tokenizers import Tokenizer

from bundle.manifest import (
    Calibration,
    Golden,
    GraphSpec,
    Manifest,
    Provenance,
    Quality,
    QualityRow,
    ScoreReference,
    TextContract,
)
from bundle.store import read_bundle, write_bundle
from bundle.text import PairEncoder
from bundle.verify import GoldenRow, dump_golden, golden_row, verify_bundle
from training.data.golden import golden_pairs
from training.data.lists import LABELS, read_lists
from training.evaluate.reference import SAMPLE_PAIRS, sample_lists, score_reference
from training.export.layout import encoder_layout
from training.models.runtime import OrtSession
from training.pack.card import card
from training.provenance import commit, libraries
from training.recipe import Recipe
from training.stages import Context, Metrics

# in the order in which one is the default
GRAPHS = {
    "int8": ("quantize", "model.int8.onnx"),
    "fp32": ("export", "model.onnx"),
    "fp16": ("export", "model.fp16.onnx"),
}
GOLDEN_FILE = "golden.jsonl"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "card.md"


def run(context: Context) -> Metrics:
    """Write `<out>/<name>/`, the bundle directory, and verify every graph in it."""
    recipe, name = context.recipe.bundle, context.recipe.run.name
    graphs = {
        precision: (context.inputs(stage) / file).read_bytes()
        for precision, (stage, file) in GRAPHS.items()
        if precision in recipe.precisions
    }
    tokenizer = strip_tokenizer((context.inputs("distil") / TOKENIZER_FILE).read_bytes())
    draft = _draft(context, graphs)
    draft = draft.model_copy(update={"reference": _reference(context, draft, tokenizer, graphs)})
    golden = golden_rows(draft, tokenizer, graphs[draft.default_precision])
    files = {GRAPHS[precision][1]: graph for precision, graph in graphs.items()}
    files |= {TOKENIZER_FILE: tokenizer, GOLDEN_FILE: dump_golden(golden)}
    files[CARD_FILE] = card(draft, data=recipe.data, limits=recipe.limits).encode()
    path = write_bundle(context.out, name, draft, files)
    bundle = read_bundle(context.out, name)
    for precision in graphs:
        verify_bundle(bundle, OrtSession, precision)
    size = sum(entry.size for entry in bundle.manifest.files.values())
    return {"id": bundle.id, "path": path.name, "bytes": size, "golden": len(golden)}


def strip_tokenizer(raw: bytes) -> bytes:
    """Return tokenizer.json without the truncation and padding that training left in it."""
    tokenizer = Tokenizer.from_buffer(raw)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.to_str().encode()


def golden_rows(manifest: Manifest, tokenizer: bytes, graph: bytes) -> list[GoldenRow]:
    """Score the golden pairs one at a time with the graph that will serve."""
    session, encoder = OrtSession(graph), PairEncoder(tokenizer, manifest.text)
    return [golden_row(session, encoder, manifest, pair) for pair in golden_pairs()]


def _reference(
    context: Context, draft: Manifest, tokenizer: bytes, graphs: dict[str, bytes]
) -> ScoreReference:
    """What the graph that will serve makes of the held-out lists."""
    pairs, splits = context.inputs("data") / "pairs.parquet", context.recipe.evaluate.splits
    lists = [judged for split in splits for judged in read_lists(pairs, split)]
    chosen = sample_lists(lists, SAMPLE_PAIRS, context.seed)
    told = f"judged pairs of {len(chosen)} of {len(lists)} held-out lists ({', '.join(splits)})"
    return score_reference(draft, tokenizer, graphs[draft.default_precision], chosen, told)


def _teacher(recipe: Recipe) -> str:
    """Name every model that had a say in what the student learnt from, and as what."""
    names = [f"fine-tuned classifier {recipe.teacher.model or 'with fresh weights'}"]
    if recipe.blend is not None:
        names += [f"zero-shot judge {recipe.judge.model}"] if recipe.blend.judge and recipe.judge else []
        names += [f"cosine of {part.model}" for part in recipe.blend.encoders]
        names += ["human labels of the train lists"] if recipe.blend.labels else []
    return ", ".join(names)


def _draft(context: Context, graphs: dict[str, bytes]) -> Manifest:
    """The manifest before its files are known."""
    recipe = context.recipe
    quality = _json(context.inputs("evaluate") / "quality.json")
    data_sha256 = _sha256(context.inputs("data") / "pairs.parquet")
    return Manifest(
        schema_version=1,
        name=recipe.run.name,
        version=recipe.run.version,
        files={},
        graphs=tuple(_graph_spec(precision, graph) for precision, graph in graphs.items()),
        default_precision=next(iter(graphs)),
        text=TextContract.model_validate_json((context.inputs("distil") / "text_contract.json").read_bytes()),
        tokenizer=TOKENIZER_FILE,
        labels=LABELS,
        calibration=Calibration.model_validate_json(
            (context.inputs("calibrate") / "calibration.json").read_bytes()
        ),
        quality=Quality(
            gain_map=quality["gain_map"],
            data_sha256=data_sha256,
            rows=tuple(QualityRow(**row) for row in quality["rows"]),
        ),
        golden=Golden(file=GOLDEN_FILE, rows=len(golden_pairs()), tolerance=recipe.bundle.golden_tolerance),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            recipe_sha256=recipe.sha256(),
            data_sha256=data_sha256,
            teacher=_teacher(recipe),
            seed=recipe.run.seed,
            libraries=libraries(),
            licences=recipe.bundle.licences,
        ),
        gates=_gates(context, quality["gates"], graphs),
    )


def _gates(context: Context, quality: dict[str, float], graphs: dict[str, bytes]) -> dict[str, float]:
    """Every figure that a limit was put on: parity, int8 fidelity, and the margins over the baselines."""
    exported = _json(context.inputs("export") / "export.json")
    parities = {"fp32 parity": exported["parity"]}
    if "fp16" in graphs:
        parities["fp16 parity"] = exported["fp16_parity"]
    fidelity = _json(context.inputs("quantize") / "quantize.json")
    kept = {f"int8 {name}": value for name, value in fidelity.items() if isinstance(value, float)}
    return {**parities, **kept, **quality}


def _graph_spec(precision: str, graph: bytes) -> GraphSpec:
    session = OrtSession(graph)
    opset = next(entry.version for entry in onnx.load_from_string(graph).opset_import if not entry.domain)
    return GraphSpec(
        file=GRAPHS[precision][1],
        precision=precision,
        opset=opset,
        inputs=session.inputs,
        outputs=session.outputs,
        layout=encoder_layout(graph),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
