"""Train the student, or the teacher, many times, one choice changed at a time, and measure each on the held-out lists.

Knows a finished run's data and labels, variants and seeds; does not know what the figures are for.
Invariant: a variant changes the trained model alone, so that all variants learn from the same labels.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data.lists import JudgedList, by_list, encode_lists, rankable, read_lists
from training.errors import RecipeError, StageError
from training.folders import part_of, read_json
from training.preflight import check_stage
from training.provenance import commit
from training.recipe import Recipe, load_recipe, load_table
from training.sections.research import StudyRecipe, VariantRecipe
from training.stages import Context, Run, carried_out, said
from training.student import student
from training.student.student import Student

RESULT, SCORES = "result.json", "scores.parquet"
CHANGEABLE: Final = {"distil": ("distil", "text"), "teacher": ("teacher",)}
"""The sections of a recipe that say how each is trained."""


def load_study(path: Path) -> StudyRecipe:
    """Read a study; RecipeError names the file and what is wrong in it."""
    study = load_table(path, "study", StudyRecipe)
    sections = CHANGEABLE[study.stage]
    for variant in study.variants:
        changes = (*study.set, *variant.set)
        wrong = [change for change in changes if change.partition(".")[0] not in sections]
        if wrong:
            raise RecipeError(
                f"{path}: variant {variant.name} sets {wrong[0]!r}; only {' and '.join(sections)} may vary"
            )
    names = [variant.name for variant in study.variants]
    if len(set(names)) != len(names):
        raise RecipeError(f"{path}: two variants have the same name")
    return study


def run_study(path: Path, overrides: Sequence[str], weights: Mapping[str, str]) -> None:
    """Train and measure what is not there yet: `<dir>/<variant>/seed-<n>/` with result.json and scores.parquet.

    `overrides` apply to the base recipe of every variant. A killed study goes on where it was.
    """
    study = load_study(path)
    base = Run(load_recipe(Path(study.recipe), overrides), weights)
    for stage in base.reads(study.stage):
        if not base.is_current(stage):
            raise StageError(
                f"stage {stage} of {study.recipe} is missing or out of date: run it before the study"
            )
    for seed in study.seeds:  # seed by seed, so that a study cut short has all variants
        for variant in study.variants:
            recipe = load_recipe(Path(study.recipe), [*overrides, *study.set, *variant.set])
            _train(base, recipe, study, variant, seed)


def _key(base: Run, recipe: Recipe, stage: str, seed: int) -> str:
    told = {
        **{section: said(getattr(recipe, section)) for section in CHANGEABLE[stage]},
        "labels": {read: base.key(read) for read in base.reads(stage)},
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _train(base: Run, recipe: Recipe, study: StudyRecipe, variant: VariantRecipe, seed: int) -> None:
    folder = Path(study.dir) / variant.name / f"seed-{seed}"
    key = _key(base, recipe, study.stage, seed)
    if (folder / RESULT).is_file() and read_json(folder / RESULT).get("key") == key:
        return
    check_stage(recipe, study.stage, base.weights)
    scratch = Path(study.dir) / ".scratch" / key[:12]
    part = part_of(folder)
    with carried_out(study.stage, Context(recipe, part, scratch, seed, base), folder) as (metrics, seconds):
        told = {
            "variant": variant.name,
            "set": [*study.set, *variant.set],
            "seed": seed,
            "key": key,
            "commit": commit(),
            "seconds": round(seconds, 1),
            "metrics": metrics,
        }
        if study.stage == "distil":
            pq.write_table(held_out_scores(part, base, recipe), part / SCORES, compression="zstd")
        if not study.keep_students:
            for made in (*part.glob("*.safetensors"), part / "tokenizer.json"):
                made.unlink()
        (part / RESULT).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    print(f"{variant.name} seed {seed}: {told['seconds']} s {json.dumps(told['metrics'])}", file=sys.stderr)


def student_scores(made: Student, lists: Sequence[JudgedList]) -> list[NDArray[np.float32]]:
    """Return the student's logits of every list."""
    return by_list(made.score(encode_lists(made.encoder, lists)), lists)


def held_out_scores(folder: Path, base: Run, recipe: Recipe) -> pa.Table:
    """Return the logits of a student folder for all held-out lists: dataset, query_id, product_id, split, score."""
    made = student.load(folder)
    rows: list[dict[str, Any]] = []
    for split in ("validation", "test"):
        lists = rankable(read_lists(base.folder("data") / "pairs.parquet", split), recipe.evaluate.min_pairs)
        if not lists:
            continue
        for judged, values in zip(lists, student_scores(made, lists), strict=True):
            told = {"dataset": judged.dataset, "query_id": judged.query_id, "split": split}
            pairs = zip(judged.product_ids, values.tolist(), strict=True)
            rows += [told | {"product_id": product, "score": score} for product, score in pairs]
    return pa.Table.from_pylist(rows)
