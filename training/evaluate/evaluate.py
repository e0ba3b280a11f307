"""Measures the student on held-out lists beside random order, BM25, a bi-encoder and the teacher.

Knows every artefact of a run; changes none of them.
Invariant: no list of the training split is measured, and every figure stands beside its floor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow.parquet as pq

from bundle.manifest import Calibration, QualityRow
from training.data.lists import LABELS, JudgedList, by_list, encode_lists, rankable, read_lists, read_scores
from training.data.sources import FIELDS
from training.errors import StageError
from training.evaluate.systems import bundle_scores
from training.measure.baselines import bm25_scores, random_order
from training.measure.figures import (
    GAIN_MAP,
    Scores,
    differences,
    figures,
    quality_rows,
    served_figures,
    tables,
)
from training.models.biencoder import BiEncoder
from training.models.runtime import OrtSession, score_rows
from training.stages import Context, Metrics
from training.student.student import load

ALL = "all sets"
BM25 = "BM25"
BM25_TITLE = "BM25, title only"
BIENCODER = "bi-encoder, zero-shot"
SHIPPED = "shipped default"
TEACHER = "teacher"
STUDENT = "student int8"
STUDENT_FP32 = "student fp32"
STUDENT_TORCH = "student torch"
TEACHER_SCORES = "scores.parquet"  # of the teacher and panel stages: dataset, query_id, product_id, score
FLOORS = (BM25, BIENCODER, SHIPPED)  # what a student has to beat to be of use
MEMBERS = ("classifier ", "judge ", "cosine ")  # how the panel's other columns begin


def biencoder_scores(folder: str, lists: Sequence[JudgedList]) -> Scores:
    """Cosines of query and title under a sentence encoder nobody fine-tuned."""
    encoder = BiEncoder(folder)
    return [encoder.scores(judged.query, [product.title for product in judged.products]) for judged in lists]


def teacher_scores(context: Context, lists: Sequence[JudgedList]) -> dict[str, Scores]:
    """The scores that the student learnt from, and those of the members if they were a blend."""
    if context.recipe.teacher is None:
        return {}
    if context.recipe.panel is None:
        path = context.inputs("teacher") / TEACHER_SCORES
        return {TEACHER: read_scores(path, lists)} if path.is_file() else {}
    path = context.inputs("panel") / TEACHER_SCORES
    columns = pq.read_schema(path).names
    members = [name for name in columns if name.startswith(MEMBERS)]
    return {TEACHER: read_scores(path, lists)} | {name: read_scores(path, lists, name) for name in members}


def run(context: Context) -> Metrics:
    """Write quality.json (rows and gates) and tables.md; the headline is the int8 student's NDCG@10."""
    recipe = context.recipe.evaluate
    pairs = context.inputs("data") / "pairs.parquet"
    calibration = Calibration.model_validate_json(
        (context.inputs("calibrate") / "calibration.json").read_bytes()
    )
    rows: list[QualityRow] = []
    for split in recipe.splits:
        lists = rankable(read_lists(pairs, split), recipe.min_pairs)
        if not lists:
            context.log("evaluate", split=split, lists=0)
            continue
        scores = _all_scores(context, lists)
        for dataset, chosen in by_dataset(lists).items():
            members = [lists[index] for index in chosen]
            of_members = {model: [values[index] for index in chosen] for model, values in scores.items()}
            rows += _rows(f"{dataset} {split}", members, of_members, calibration, recipe.resamples)
    if not rows:
        raise StageError(
            f"no held-out list has {recipe.min_pairs} judged products and two gains; hold out a larger share of the data"
        )
    gates = {f"{row.metric}, {row.model}, low: {row.dataset}": row.low for row in rows if " - " in row.model}
    document = {"gain_map": GAIN_MAP, "rows": [row.model_dump() for row in rows], "gates": gates}
    (context.out / "quality.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    (context.out / "tables.md").write_text(tables(rows))
    return {
        f"{row.dataset} {row.metric} {row.model}": row.value
        for row in rows
        if row.metric == "ndcg@10" and row.model in (BM25, TEACHER, STUDENT)
    }


def behind(rows: Sequence[QualityRow]) -> str:
    """Return in one line what the student is behind on the validation lists by NDCG@10, of all sets if there are several."""
    validation = [row for row in rows if row.metric == "ndcg@10" and row.dataset.endswith(" validation")]
    pooled = [row for row in validation if row.dataset == f"{ALL} validation"] or validation
    lost = [
        row for row in pooled if row.value < 0 and row.model in {f"{STUDENT} - {other}" for other in FLOORS}
    ]
    told = (
        f"{row.model.removeprefix(f'{STUDENT} - ')} (NDCG@10 {row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}], "
        f"{row.lists} lists)"
        for row in lost
    )
    return f"on the validation lists this model is behind {' and '.join(told)}" if lost else ""


def by_dataset(lists: Sequence[JudgedList]) -> dict[str, list[int]]:
    """Return the places of each data set's lists, and of all of them together if there are several sets."""
    chosen: dict[str, list[int]] = {}
    for index, judged in enumerate(lists):
        chosen.setdefault(judged.dataset, []).append(index)
    return chosen if len(chosen) == 1 else chosen | {ALL: list(range(len(lists)))}


def _all_scores(context: Context, lists: Sequence[JudgedList]) -> dict[str, Scores]:
    """Scores of every model on the lists, floors first."""
    pairs = context.inputs("data") / "pairs.parquet"
    scores: dict[str, Scores] = {
        "random order": [random_order(len(judged)) for judged in lists],
        BM25: bm25_scores(pairs, lists, FIELDS),
        BM25_TITLE: bm25_scores(pairs, lists, ["title"]),
    }
    if context.recipe.evaluate.biencoder:
        scores[BIENCODER] = biencoder_scores(context.weights(context.recipe.evaluate.biencoder), lists)
    if shipped := context.recipe.evaluate.shipped_manifest():
        _, scores[SHIPPED] = bundle_scores(shipped.parent, lists)
    scores |= teacher_scores(context, lists)
    student = load(context.inputs("distil"))
    rows, contract = encode_lists(student.encoder, lists), student.contract
    fp32 = OrtSession((context.inputs("export") / "model.onnx").read_bytes())
    int8 = OrtSession((context.inputs("quantize") / "model.int8.onnx").read_bytes())
    scores[STUDENT_TORCH] = by_list(student.score(rows), lists)
    scores[STUDENT_FP32] = by_list(score_rows(fp32, rows, contract), lists)
    scores[STUDENT] = by_list(score_rows(int8, rows, contract), lists)
    return scores


def _rows(
    name: str,
    lists: Sequence[JudgedList],
    scores: dict[str, Scores],
    calibration: Calibration,
    resamples: int,
) -> list[QualityRow]:
    rows = []
    for model, values in scores.items():
        rows += quality_rows(name, model, figures(lists, values, resamples))
    served = served_figures(lists, scores[STUDENT], calibration, LABELS, resamples)
    rows += quality_rows(name, STUDENT, served)
    for other in (*FLOORS, TEACHER, STUDENT_FP32):
        if other in scores:
            paired = differences(lists, scores[STUDENT], scores[other], resamples)
            rows += quality_rows(name, f"{STUDENT} - {other}", paired)
    return rows
