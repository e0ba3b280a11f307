"""Blend the teacher's scores with the judge's, sentence encoders' cosines and human labels: the ensemble teaches.

Knows label shards, judged and labelled pairs and bi-encoders; does not know students.
Invariant: every pair keeps each member's score beside the blend, and the blend has the teacher logit's scale.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.errors import StageError
from training.models.biencoder import BiEncoder
from training.stages import Context, Metrics

Floats = NDArray[np.float64]
Members = dict[str, tuple[float, Floats]]  # name -> weight and scores [n]
# Within queries, of logits, log-odds, cosines and targets alike. One epoch on 60 invented queries gave 7e-4, a teacher
# that had not learnt anything 7e-7.
LEAST_SPREAD = 1e-4


def spread_within(values: Floats, groups: NDArray[np.int64]) -> float:
    """Return the root mean square deviation of values [n] from the mean of their group [n].

    >>> round(spread_within(np.array([1.0, 3.0, 10.0, 14.0]), np.array([0, 0, 1, 1])) ** 2, 6)
    2.5
    """
    means = np.bincount(groups, values) / np.bincount(groups)
    return float(np.sqrt(np.mean((values - means[groups]) ** 2)))


def whole_groups(values: Floats, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say for each entry [n] whether no value of its group is NaN.

    >>> whole_groups(np.array([1.0, np.nan, 3.0]), np.array([0, 0, 1])).tolist()
    [False, False, True]
    """
    missing = np.bincount(groups, np.isnan(values))
    return (missing == 0)[groups]


def blended(members: Members, groups: NDArray[np.int64]) -> Floats:
    """Return the weighted mean of members' scores [n], each at the first one's spread within queries.

    A member may lack scores (NaN): it has no say on a query, one entry of groups [n], that it did not score
    whole. The first member must have scored all. StageError if a member has next to no spread: scaled up, it would
    be noise, and as the first one it would make all the others as flat as itself.
    """
    first = 0.0
    total, weights = np.zeros(len(groups)), np.zeros(len(groups))
    for name, (weight, scores) in members.items():
        known = whole_groups(scores, groups)
        if not known.any():
            continue
        _, known_groups = np.unique(groups[known], return_inverse=True)
        spread = spread_within(scores[known], known_groups)
        if not spread >= LEAST_SPREAD:
            raise StageError(
                f"blend: the scores of {name} differ by {spread:.1g} within queries, next to nothing, so a student would "
                "learn a constant: train or choose another, or take it out of [blend]"
            )
        first = first or spread
        total[known] += weight * first / spread * scores[known]
        weights[known] += weight
    return total / weights


def cosines_of(table: pa.Table, encoder: BiEncoder) -> Floats:
    """Return the cosine of query and title for every pair, [n]; every distinct title is embedded once."""
    titles = table["title"].to_pylist()
    places = {title: place for place, title in enumerate(dict.fromkeys(titles))}
    products = encoder.embed(list(places))
    queries = table["query"].to_pylist()
    query_places = {query: place for place, query in enumerate(dict.fromkeys(queries))}
    wanted = encoder.embed(list(query_places))
    left = wanted[[query_places[query] for query in queries]]
    right = products[[places[title] for title in titles]]
    return np.einsum("nd,nd->n", left, right).astype(np.float64)


def log_odds_of(table: pa.Table, judged: Path) -> Floats:
    """Return the judge's log-odds for every pair, [n]; NaN where it was not asked."""
    return _joined(table, pq.read_table(judged), "log_odds")


def labels_of(table: pa.Table, pairs: Path) -> Floats:
    """Return the human soft target for every pair of a train list, [n]; NaN for every other pair."""
    return _joined(table, pq.read_table(pairs, filters=[("split", "=", "train")]), "target")


def _joined(table: pa.Table, other: pa.Table, column: str) -> Floats:
    told = other.select(["query_id", "product_id", column]).to_pylist()
    known = {(row["query_id"], row["product_id"]): row[column] for row in told}
    pairs = zip(table["query_id"].to_pylist(), table["product_id"].to_pylist(), strict=True)
    return np.array([known.get(pair, np.nan) for pair in pairs], np.float64)


def members_of(context: Context, table: pa.Table, logits: Floats, odds: Floats | None) -> Members:
    """Return every member's weight and scores [n] of a table of pairs, the fine-tuned teacher first."""
    recipe = context.recipe.blend
    assert recipe is not None
    members = {f"classifier {_short(context.recipe.teacher.model)}": (recipe.teacher, logits)}
    if odds is not None:
        assert context.recipe.judge is not None
        members[f"judge {_short(context.recipe.judge.model)}"] = (recipe.judge, odds)
    for part in recipe.encoders:
        encoder = BiEncoder(context.weights(part.model), bf16=recipe.bf16)
        members[f"cosine {_short(part.model)}"] = (part.weight, cosines_of(table, encoder))
    return members


def _short(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1] or "fresh"


def with_scores(table: pa.Table, members: Members) -> pa.Table:
    """Append a column of scores for each member, under its name."""
    for name, (_, scores) in members.items():
        table = table.append_column(name, pa.array(scores, from_pandas=True))
    return table


def run(context: Context) -> Metrics:
    """Write shards/labels-00000.parquet: `logit` is the blend; each member's scores have a column beside it."""
    recipe = context.recipe.blend
    assert recipe is not None
    shards = sorted((context.inputs("label") / "shards").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(shard) for shard in shards])
    groups = np.array([i for i, (_, g) in enumerate(groupby(table["query_id"].to_pylist())) for _ in g])
    logits = table["logit"].to_numpy().astype(np.float64)
    odds = log_odds_of(table, context.inputs("judge") / "judged.parquet") if recipe.judge else None
    members = members_of(context, table, logits, odds)
    if recipe.labels:
        members["labels"] = (recipe.labels, labels_of(table, context.inputs("data") / "pairs.parquet"))
    blend = blended(members, groups)
    place = table.schema.get_field_index("logit")
    table = table.set_column(place, "logit", pa.array(blend.astype(np.float32)))
    (context.out / "shards").mkdir()
    path = context.out / "shards" / "labels-00000.parquet"
    pq.write_table(with_scores(table, members), path, compression="zstd")
    judged = 0 if odds is None else int(np.isfinite(odds).sum())
    share = {f"correlation {name}": _correlation(blend, scores) for name, (_, scores) in members.items()}
    return {"pairs": len(table), "judged": judged, **share}


def _correlation(blend: Floats, scores: Floats) -> float:
    known = ~np.isnan(scores)
    return round(float(np.corrcoef(blend[known], scores[known])[0, 1]), 4) if known.sum() > 1 else 0.0
