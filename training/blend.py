"""Blend the teacher's scores with a zero-shot sentence encoder's cosines: a small teacher ensemble.

Knows label shards and a bi-encoder; does not know students.
Invariant: every pair keeps its teacher logit beside the blend, and the blend has the teacher logit's scale.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.baselines import BiEncoder

if TYPE_CHECKING:
    from training.stages import Context, Metrics

Floats = NDArray[np.float64]


def spread_within(values: Floats, groups: NDArray[np.int64]) -> float:
    """Return the root mean square deviation of values [n] from the mean of their group [n].

    >>> round(spread_within(np.array([1.0, 3.0, 10.0, 14.0]), np.array([0, 0, 1, 1])) ** 2, 6)
    2.5
    """
    means = np.bincount(groups, values) / np.bincount(groups)
    return float(np.sqrt(np.mean((values - means[groups]) ** 2)))


def blended(logits: Floats, cosines: Floats, groups: NDArray[np.int64], weight: float) -> Floats:
    """Return (1 - weight) * logit + weight * cosine, the cosine scaled to the logit's spread within queries.

    Shapes: logits, cosines and groups (query index) are all [n].
    """
    scale = spread_within(logits, groups) / spread_within(cosines, groups)
    return (1 - weight) * logits + weight * scale * cosines


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


def run(context: Context) -> Metrics:
    """Write shards/labels-00000.parquet: `logit` is the blend, `teacher_logit` and `cosine` its parts."""
    recipe = context.recipe.blend
    assert recipe is not None
    shards = sorted((context.inputs("label") / "shards").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(shard) for shard in shards])
    logits = table["logit"].to_numpy().astype(np.float64)
    groups = np.array([i for i, (_, g) in enumerate(groupby(table["query_id"].to_pylist())) for _ in g])
    cosines = cosines_of(table, BiEncoder(context.weights(recipe.biencoder)))
    blend = blended(logits, cosines, groups, recipe.weight)
    place = table.schema.get_field_index("logit")
    table = table.rename_columns({"logit": "teacher_logit"}).append_column("cosine", pa.array(cosines))
    table = table.add_column(place, "logit", pa.array(blend.astype(np.float32)))
    (context.out / "shards").mkdir()
    pq.write_table(table, context.out / "shards" / "labels-00000.parquet", compression="zstd")
    agreement = float(np.corrcoef(logits, cosines)[0, 1])
    return {"pairs": len(table), "correlation": round(agreement, 4)}
