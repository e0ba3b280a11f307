"""Make unlabelled query-product pairs: candidates of BM25 and a sentence encoder across ranks, and random ones.

Knows retrieval and sampling; does not know teachers.
Invariant: no query that is one of the validation or test split, and no product twice for a query.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data.sources import FIELDS, write_rows
from training.data.splits import form_of, normalize_query
from training.sections.data import AugmentRecipe
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

SIMILARITY_ROWS = 256  # queries compared with every product at once

Row = dict[str, Any]


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return float32 [n, hidden]."""


def choose_queries(pairs: list[Row], pool: list[Row], recipe: AugmentRecipe, seed: int) -> list[Row]:
    """Return the queries to augment, each once by normalised form, never one of a held-out split.

    Train queries come first; pool queries follow, sources interleaved, in an order fixed by the seed. With the
    guard `words` a query is also one of a held-out split if it has the same words in another order or number.
    """
    form = form_of(recipe.guard)
    held_out = {form(row["query"]) for row in pairs if row["split"] != "train"}
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
    kept = [row for key, row in chosen.items() if key and form(row["query"]) not in held_out]
    return kept[: recipe.max_queries]


def overlap(one: frozenset[str], two: frozenset[str]) -> float:
    """Return the share of words that two titles have in common, of those that either has (Jaccard).

    >>> overlap(frozenset("abc"), frozenset("abd"))
    0.5
    """
    return len(one & two) / max(len(one | two), 1)


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


def lexical_candidates(queries: list[Row], products: list[Row], depth: int) -> list[np.ndarray]:
    """Return, per query, the products (row numbers, best first) that BM25 finds, at most `depth`."""
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize([product_line(p) for p in products], stopwords="en", show_progress=False),
        show_progress=False,
    )
    tokens = bm25s.tokenize(
        [q["query"] for q in queries], stopwords=None, show_progress=False, return_ids=False
    )
    found, scores = index.retrieve(tokens, k=min(depth, len(products)), show_progress=False, n_threads=0)
    return [ids[score > 0] for ids, score in zip(found, scores, strict=True)]


def dense_candidates(
    queries: list[Row], products: list[Row], depth: int, encoder: Encoder, least: float
) -> list[np.ndarray | None]:
    """Return, per query, the products (row numbers, best first) nearest to it by cosine of the titles.

    None for a query whose nearest product is less similar than `least`: the catalogue has nothing for it.
    """
    titles = encoder.embed([product["title"] for product in products])
    wanted = encoder.embed([query["query"] for query in queries])
    depth = min(depth, len(products))
    found: list[np.ndarray | None] = []
    for start in range(0, len(queries), SIMILARITY_ROWS):
        cosines = wanted[start : start + SIMILARITY_ROWS] @ titles.T
        nearest = np.argpartition(-cosines, depth - 1, axis=1)[:, :depth]
        for ids, row in zip(nearest, cosines, strict=True):
            best_first = ids[np.argsort(-row[ids], kind="stable")]
            found.append(best_first if row[best_first[0]] >= least else None)
    return found


def distinct(picks: dict[int, int], products: list[Row], near: float) -> dict[int, int]:
    """Drop picks (row number -> rank) whose title overlaps by `near` or more with one before it; 0 drops none."""
    if not near:
        return picks
    words: list[frozenset[str]] = []
    kept = {}
    for pick, rank in picks.items():
        title = frozenset(normalize_query(products[pick]["title"]).split())
        if all(overlap(title, other) < near for other in words):
            words.append(title)
            kept[pick] = rank
    return kept


def statistics(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Return, per query source: queries, pairs, pairs a query, and the shares of pairs by retrieval rank."""
    found: dict[str, dict[str, float]] = {}
    for source in sorted({row["query_source"] for row in rows}):
        of_source = [row for row in rows if row["query_source"] == source]
        queries = len({row["query_id"] for row in of_source})
        ranks = np.array([row["rank"] for row in of_source])
        told: dict[str, float] = {"queries": queries, "pairs": len(of_source)}
        told["pairs a query"] = round(len(of_source) / queries, 2)
        told["share at random"] = round(float((ranks < 0).mean()), 3)
        told["share of ranks 1 to 5"] = round(float(((ranks >= 0) & (ranks < 5)).mean()), 3)
        told["share of ranks 6 to 20"] = round(float(((ranks >= 5) & (ranks < 20)).mean()), 3)
        found[source] = told
    return found


def pair_up(
    queries: list[Row],
    products: list[Row],
    recipe: AugmentRecipe,
    seed: int,
    encoder: Encoder | None = None,
) -> list[Row]:
    """Return unlabelled rows, query by query, each product once: `ranked`, then `dense`, then `random` ones.

    Without an encoder there are no dense ones and no query is left out.
    """
    lexical = lexical_candidates(queries, products, recipe.depth)
    dense: list[np.ndarray | None] = [np.empty(0, np.int64)] * len(queries)
    if encoder is not None:
        dense = dense_candidates(queries, products, recipe.depth, encoder, recipe.min_cosine)
    rows = []
    for query, matching, near in zip(queries, lexical, dense, strict=True):
        if near is None:
            continue
        query_id = hashlib.sha256(normalize_query(query["query"]).encode()).hexdigest()[:16]
        generator = np.random.default_rng([seed, int(query_id, 16)])
        picks: dict[int, int] = {}
        for ids, count in ((matching, recipe.ranked), (near, recipe.dense)):
            for rank in sample_ranks(len(ids), count, generator):
                picks.setdefault(int(ids[rank]), int(rank))
        for pick in generator.integers(len(products), size=recipe.random).tolist():
            picks.setdefault(pick, -1)
        for pick, rank in distinct(picks, products, recipe.near_duplicate).items():
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
    """Write pairs.parquet, unlabelled pairs grouped by query, and statistics.json."""
    data, recipe = context.inputs("data"), context.recipe.augment
    pairs = pq.read_table(data / "pairs.parquet").to_pylist()
    pool_queries = pq.read_table(data / "pool_queries.parquet").to_pylist()
    pool_products = pq.read_table(data / "pool_products.parquet").to_pylist()
    products = unique_products(pairs + pool_products)
    queries = choose_queries(pairs, pool_queries, recipe, context.seed)
    encoder = None
    if recipe.biencoder:
        from training.models.biencoder import BiEncoder  # noqa: PLC0415 - seconds of imports, for an encoder alone

        encoder = BiEncoder(context.weights(recipe.biencoder), bf16=recipe.bf16)
    rows = pair_up(queries, products, recipe, context.seed, encoder)
    write_rows(rows, UNLABELLED, context.out / "pairs.parquet")
    told = json.dumps(statistics(rows), indent=1, sort_keys=True)
    (context.out / "statistics.json").write_text(told + "\n", encoding="utf-8")
    kept = len({row["query_id"] for row in rows})
    return {"queries": kept, "asked": len(queries), "products": len(products), "pairs": len(rows)}
