"""The stage that packs a run: its graphs, texts, figures and provenance become a bundle.

Knows every artefact of a run; does not know how a bundle is written or verified.
Invariant: what the manifest says is what the run's stages wrote.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bundle.manifest import Calibration, Golden, Manifest, Provenance, Quality, QualityRow, TextContract
from training.data.golden import golden_pairs
from training.data.lists import LABELS, read_lists
from training.evaluate.evaluate import behind
from training.evaluate.reference import SAMPLE_PAIRS, sample_lists
from training.pack.assemble import (
    GOLDEN_FILE,
    GRAPH_FILES,
    TOKENIZER_FILE,
    Sample,
    assemble,
    graph_specs,
    strip_tokenizer,
)
from training.pack.card import NO_TEACHER, card
from training.provenance import commit, libraries
from training.recipe import Recipe
from training.stages import Context, Metrics

STAGES = {"int8": "quantize", "fp32": "export", "fp16": "export"}  # where each graph is made


def run(context: Context) -> Metrics:
    """Write `<out>/<name>/`, the bundle directory, and verify every graph in it."""
    recipe, name = context.recipe.bundle, context.recipe.run.name
    graphs = {
        precision: (context.inputs(STAGES[precision]) / file).read_bytes()
        for precision, file in GRAPH_FILES.items()
        if precision in recipe.precisions
    }
    tokenizer = strip_tokenizer((context.inputs("distil") / TOKENIZER_FILE).read_bytes())
    bundle = assemble(
        context.out,
        _draft(context, graphs),
        graphs=graphs,
        tokenizer=tokenizer,
        reference=_reference(context),
        card=partial(card, data=recipe.data, limits=recipe.limits),
    )
    size = sum(entry.size for entry in bundle.manifest.files.values())
    told: dict[str, int | str] = {
        "id": bundle.id,
        "path": name,
        "bytes": size,
        "golden": bundle.manifest.golden.rows,
    }
    warning = behind(bundle.manifest.quality.rows)
    return told | ({"warning": warning} if warning else {})


def _reference(context: Context) -> Sample:
    """The held-out lists that live traffic is compared with."""
    pairs, splits = context.inputs("data") / "pairs.parquet", context.recipe.evaluate.splits
    lists = [judged for split in splits for judged in read_lists(pairs, split)]
    chosen = sample_lists(lists, SAMPLE_PAIRS, context.seed)
    return Sample(
        chosen, f"judged pairs of {len(chosen)} of {len(lists)} held-out lists ({', '.join(splits)})"
    )


def _teacher(recipe: Recipe) -> str:
    """Name every model that had a say in what the student learnt from, and as what."""
    if recipe.distil.learn_from == "labels" or recipe.teacher is None:
        return NO_TEACHER
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
        graphs=graph_specs(graphs),
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


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
