"""Score the held-out lists with the teacher ensemble and with each of its members, for the evaluation.

Knows the members and their blend; does not know students.
Invariant: no pair that it scores is of the train split, and no training stage reads what it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.stages import Context, Metrics
from training.teacher.blend import blended, members_of, with_scores
from training.teacher.judge import YesNoJudge
from training.teacher.shards import Scorer, by_query, score_shards

Row = dict[str, Any]


def held_out_lists(pairs: Sequence[Row], least: int) -> list[Row]:
    """Return the validation and test pairs of queries with at least `least` products, query by query."""

    def place(row: Row) -> tuple[str, str, str]:
        return row["split"], row["dataset"], row["query_id"]

    held_out = sorted((row for row in pairs if row["split"] != "train"), key=place)
    lists = (list(group) for _, group in groupby(held_out, key=place))
    return [row for group in lists if len(group) >= least for row in group]


def run(context: Context) -> Metrics:
    """Write scores.parquet: `score` is the blend; each member's scores have a column beside it."""
    recipe, blend = context.recipe.panel, context.recipe.blend
    assert recipe is not None
    assert blend is not None
    rows = held_out_lists(
        pq.read_table(context.inputs("data") / "pairs.parquet").to_pylist(), recipe.min_pairs
    )
    told = pq.read_table(context.inputs("teacher") / "scores.parquet").to_pylist()
    known = {(row["dataset"], row["query_id"], row["product_id"]): row["score"] for row in told}
    logits = np.array([known[row["dataset"], row["query_id"], row["product_id"]] for row in rows], np.float64)
    table = pa.Table.from_pylist(rows)
    odds = _judged(context, table, recipe.shard_queries) if blend.judge else None
    lists = [(row["dataset"], row["query_id"]) for row in rows]
    groups = np.array([i for i, (_, group) in enumerate(groupby(lists)) for _ in group])
    members = members_of(context, table, logits, odds)
    score = pa.array(blended(members, groups))
    table = table.select(["dataset", "query_id", "product_id", "split"]).append_column("score", score)
    pq.write_table(with_scores(table, members), context.out / "scores.parquet", compression="zstd")
    return {"pairs": len(rows), "lists": int(groups[-1]) + 1, "members": len(members)}


def _judged(context: Context, pairs: pa.Table, shard_queries: int) -> np.ndarray:
    """Return the judge's log-odds for every pair, float64 [n]; scored in shards, so a killed run goes on."""
    recipe = context.recipe.judge
    assert recipe is not None

    def scorer() -> Scorer:
        return YesNoJudge(recipe, context.weights(recipe.model))

    paths = score_shards(by_query(pairs, shard_queries), scorer, context.scratch, "held-out", context.run.ray)
    scores = pa.concat_tables([pq.read_table(path, columns=["log_odds"]) for path in paths])
    return scores["log_odds"].to_numpy().astype(np.float64)
