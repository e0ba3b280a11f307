"""Make unlabelled query-product pairs: BM25 candidates sampled across ranks plus random products.

Knows retrieval and sampling; does not know teachers.
Invariant: no query whose normalised form is in the validation or test split, and no product twice for a query.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data import FIELDS, normalize_query, write_rows
from training.recipe import AugmentRecipe

if TYPE_CHECKING:
    from training.stages import Context, Metrics

UNLABELLED = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("query_source", pa.string()),
        ("product_id", pa.string()),
    ]
    + [(field, pa.string()) for field in FIELDS]
    + [("rank", pa.int32())]
)

Row = dict[str, Any]


def choose_queries(pairs: list[Row], pool: list[Row], recipe: AugmentRecipe, seed: int) -> list[Row]:
    """Return the queries to augment, each once by normalised form, never one of a held-out split.

    Train queries come first; pool queries follow, sources interleaved, in an order fixed by the seed.
    """
    held_out = {normalize_query(row["query"]) for row in pairs if row["split"] != "train"}
    chosen: dict[str, Row] = {}
    if recipe.train_queries:
        for row in pairs:
            if row["split"] == "train":
                chosen.setdefault(
                    normalize_query(row["query"]), {"query": row["query"], "source": row["dataset"]}
                )
    by_source: dict[str, list[Row]] = {}
    for row in pool:
        if not recipe.query_sources or row["source"] in recipe.query_sources:
            by_source.setdefault(row["source"], []).append(row)
    for rows in by_source.values():
        rows.sort(key=lambda row: hashlib.sha256(f"{seed}\0{row['query']}".encode()).digest())
    for place in range(max(map(len, by_source.values()), default=0)):
        for rows in by_source.values():
            if place < len(rows):
                chosen.setdefault(normalize_query(rows[place]["query"]), rows[place])
    kept = [row for key, row in chosen.items() if key and key not in held_out]
    return kept[: recipe.max_queries]


def sample_ranks(depth: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `count` distinct ranks below `depth`, log-uniformly: dense at the top, thin in the tail."""
    if depth <= count:
        return np.arange(depth)
    weights = 1.0 / (np.arange(depth) + 2.0)
    return np.sort(generator.choice(depth, size=count, replace=False, p=weights / weights.sum()))


def product_line(row: Row) -> str:
    """Return the text BM25 indexes: title, brand, colour and category."""
    return " ".join(row[field] for field in ("title", "brand", "color", "category") if row[field])


def unique_products(rows: list[Row]) -> list[Row]:
    """Drop products whose id or normalised title came before; a titleless product is dropped too."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        keys = {f"id:{row['product_id']}", f"title:{normalize_query(row['title'])}"}
        if row["title"] and not keys & seen:
            kept.append(row)
        seen |= keys
    return kept


def pair_up(queries: list[Row], products: list[Row], recipe: AugmentRecipe, seed: int) -> list[Row]:
    """Return unlabelled rows: for each query `ranked` products across BM25 ranks and `random` others."""
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize([product_line(p) for p in products], stopwords="en", show_progress=False),
        show_progress=False,
    )
    tokens = bm25s.tokenize(
        [q["query"] for q in queries], stopwords=None, show_progress=False, return_ids=False
    )
    depth = min(recipe.depth, len(products))
    found, scores = index.retrieve(tokens, k=depth, show_progress=False, n_threads=0)
    rows = []
    for query, ids, score in zip(queries, found, scores, strict=True):
        query_id = hashlib.sha256(normalize_query(query["query"]).encode()).hexdigest()[:16]
        generator = np.random.default_rng([seed, int(query_id, 16)])
        matching = ids[score > 0]
        ranks = sample_ranks(len(matching), recipe.ranked, generator)
        picks = [(int(matching[rank]), int(rank)) for rank in ranks]
        taken = {pick for pick, _ in picks}
        for pick in generator.integers(len(products), size=recipe.random).tolist():
            if pick not in taken:
                taken.add(pick)
                picks.append((pick, -1))
        for pick, rank in picks:
            texts = {field: products[pick][field] for field in FIELDS}
            told = {
                "query_id": query_id,
                "query": query["query"],
                "query_source": query["source"],
                "rank": rank,
            }
            rows.append(told | {"product_id": products[pick]["product_id"]} | texts)
    return rows


def run(context: Context) -> Metrics:
    """Write pairs.parquet: unlabelled pairs grouped by query."""
    data, recipe = context.inputs("data"), context.recipe.augment
    pairs = pq.read_table(data / "pairs.parquet").to_pylist()
    pool_queries = pq.read_table(data / "pool_queries.parquet").to_pylist()
    pool_products = pq.read_table(data / "pool_products.parquet").to_pylist()
    products = unique_products(pairs + pool_products)
    queries = choose_queries(pairs, pool_queries, recipe, context.seed)
    rows = pair_up(queries, products, recipe, context.seed)
    write_rows(rows, UNLABELLED, context.out / "pairs.parquet")
    return {"queries": len(queries), "products": len(products), "pairs": len(rows)}
