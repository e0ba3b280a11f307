"""Score the unlabelled pairs with the teacher, shard by shard.

Knows the teacher and shards; does not know students.
Invariant: every pair keeps its raw logit and its class probabilities, and is scored once.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bundle.manifest import Calibration
from bundle.score import class_probabilities
from training.data.augment import UNLABELLED
from training.sections.teacher import LabelRecipe
from training.stages import Context, Metrics
from training.teacher import teacher
from training.teacher.shards import Scorer, by_query, score_shards
from training.teacher.vllm_teacher import VllmTeacher

JUDGED_RANK = -2  # the product comes from a judged list, not from retrieval


class Labeller:
    """Adds `logit` and `probabilities` (one per class, ascending relevance) to a table of pairs."""

    def __init__(
        self, model: teacher.Teacher | VllmTeacher, calibration: Calibration, recipe: LabelRecipe
    ) -> None:
        self.model, self.calibration, self.recipe = model, calibration, recipe

    def __call__(self, pairs: pa.Table) -> pa.Table:
        """Return the pairs with their teacher scores; a score depends on its pair alone up to rounding."""
        rows = pairs.to_pylist()
        logits = self.model.score(rows, self.recipe.batch_pairs, bf16=self.recipe.bf16)
        probabilities = class_probabilities(logits.astype(np.float64), self.calibration).astype(np.float32)
        column = pa.array(list(probabilities), pa.list_(pa.float32()))
        return pairs.append_column("logit", pa.array(logits)).append_column("probabilities", column)


def to_label(judged: pa.Table, unlabelled: pa.Table, max_queries: int = 0) -> pa.Table:
    """Return all pairs the student learns from: the train split's products without their labels, then the others.

    Of the others only the first `max_queries` queries are taken, if that is not 0.
    """
    if max_queries:
        kept = set(list(dict.fromkeys(unlabelled["query_id"].to_pylist()))[:max_queries])
        unlabelled = unlabelled.filter(pc.is_in(unlabelled["query_id"], pa.array(list(kept), pa.string())))
    train = judged.filter(pc.equal(judged["split"], "train")).sort_by([("query_id", "ascending")])
    source = train["dataset"].cast(pa.string())
    rank = pa.array([JUDGED_RANK] * len(train), pa.int32())
    train = train.append_column("query_source", source).append_column("rank", rank)
    return pa.concat_tables([train.select(UNLABELLED.names).cast(UNLABELLED), unlabelled.cast(UNLABELLED)])


def run(context: Context) -> Metrics:
    """Write shards/labels-*.parquet: every pair with the teacher's logit and class probabilities."""
    recipe, folder = context.recipe.label, context.inputs("teacher")
    pairs = to_label(
        pq.read_table(context.inputs("data") / "pairs.parquet"),
        pq.read_table(context.inputs("augment") / "pairs.parquet"),
        recipe.max_queries,
    )

    def scorer() -> Scorer:
        calibration = Calibration.model_validate_json((folder / "calibration.json").read_bytes())
        if recipe.backend == "vllm":
            return Labeller(VllmTeacher(folder, context.recipe.teacher), calibration, recipe)
        return Labeller(teacher.load(folder, context.recipe.teacher), calibration, recipe)

    paths = score_shards(
        by_query(pairs, recipe.shard_queries), scorer, context.scratch, "labels", context.run.ray
    )
    shards = context.out / "shards"
    shards.mkdir()
    total = 0
    for path in paths:
        table = pq.read_table(path)
        total += len(table)
        pq.write_table(table, shards / path.name, compression="zstd")
    if total != len(pairs):
        raise RuntimeError(f"{total} labelled pairs from {len(pairs)}; a shard file was changed by hand")
    return {"pairs": total, "shards": len(paths)}
