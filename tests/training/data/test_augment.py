"""Unlabelled pairs: where they come from and what must never be among them."""

import numpy as np
import pytest

pytest.importorskip("bm25s", reason="the training environment is not installed")

from training.data import synthetic
from training.data.augment import (
    choose_queries,
    dense_candidates,
    distinct,
    pair_up,
    sample_ranks,
    statistics,
    unique_products,
)
from training.data.splits import normalize_query
from training.sections.data import AugmentRecipe


def test_held_out_queries_never_come_back() -> None:
    """A pool query that is a spelling variant of a validation or test query is dropped."""
    pairs = [
        {"query": "red shoes", "split": "validation", "dataset": "d"},
        {"query": "blue hat", "split": "test", "dataset": "d"},
        {"query": "green bag", "split": "train", "dataset": "d"},
    ]
    pool = [{"query": q, "source": "s"} for q in ("Red  Shoes!", "BLUE hat", "green bag", "new query", "??")]

    chosen = choose_queries(pairs, pool, AugmentRecipe(), seed=0)

    assert [row["query"] for row in chosen] == ["green bag", "new query"]


def test_pairs_are_unique_and_grouped() -> None:
    """No product twice for a query, rows of a query are neighbours, random products are marked."""
    products, queries = synthetic.pool(1, 300, 20)
    rows = pair_up(queries, unique_products(products), AugmentRecipe(depth=50, ranked=6, random=3), seed=1)
    keys = [(row["query_id"], row["product_id"]) for row in rows]
    order = list(dict.fromkeys(row["query_id"] for row in rows))

    assert len(keys) == len(set(keys))
    assert [row["query_id"] for row in rows] == sorted((r["query_id"] for r in rows), key=order.index)
    assert {-1} < {row["rank"] for row in rows}
    assert len(order) == 20


def test_top_ranks_share_words_with_the_query() -> None:
    """Retrieved products match the query better than random ones."""
    products, queries = synthetic.pool(2, 400, 20)
    rows = pair_up(queries, unique_products(products), AugmentRecipe(ranked=5, random=5), seed=1)

    def shared(row: dict) -> float:
        return len(set(row["query"].split()) & set(normalize_query(row["title"]).split()))

    ranked, random = ([shared(r) for r in rows if (r["rank"] < 0) == drawn] for drawn in (False, True))
    assert np.mean(ranked) > 2 * np.mean(random)


class Words:
    """An encoder of word counts."""

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors [n, words]; a text without a known word is the zero vector."""
        known = ("red", "shoe", "hat", "blue")
        counts = np.array([[text.split().count(word) for word in known] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_an_encoder_adds_neighbours_and_drops_queries_without_any() -> None:
    """The nearest products by cosine come with their rank; a query far from every product has no rows."""
    products = [
        {"product_id": str(i), "title": t} | dict.fromkeys(("brand", "color", "category"), "")
        for i, t in enumerate(("red shoe", "blue shoe", "hat", "red hat"))
    ]
    products = [row | {"bullets": "", "description": ""} for row in products]
    queries = [{"query": q, "source": "s"} for q in ("red shoe", "toaster")]
    recipe = AugmentRecipe(ranked=1, depth=1, dense=3, random=0, biencoder="m", min_cosine=0.5)

    assert dense_candidates(queries, products, 4, Words(), 0.5)[1] is None
    nearest = dense_candidates(queries, products, 2, Words(), 0.5)[0]
    assert nearest is not None
    assert nearest.tolist() == [0, 1]
    found = pair_up(queries, products, recipe.model_copy(update={"depth": 4}), seed=0, encoder=Words())
    assert {row["query"] for row in found} == {"red shoe"}
    assert len({row["product_id"] for row in found}) == len(found) >= 3


def test_sampled_ranks_are_distinct_and_favour_the_top() -> None:
    """Ranks are distinct, within depth, and the top ten are drawn far more often than the last ten."""
    draws = [sample_ranks(100, 8, np.random.default_rng(i)) for i in range(300)]
    flat = np.concatenate(draws)

    assert all(len(set(draw.tolist())) == 8 for draw in draws)
    assert flat.max() < 100
    assert (flat < 10).sum() > 5 * (flat >= 90).sum()


def test_repeated_products_are_dropped() -> None:
    """The same id or the same normalised title counts once."""
    rows = [
        {"product_id": i, "title": t}
        for i, t in (("1", "Red Shoe"), ("1", "Other"), ("2", "red-shoe"), ("3", "Hat"), ("4", ""))
    ]

    assert [row["product_id"] for row in unique_products(rows)] == ["1", "3"]


def test_the_guard_of_words_keeps_rewordings_of_held_out_queries_away() -> None:
    """Another order or number of the same words is the same query under `words`, not under `equal`."""
    pairs = [{"query": "laptop bags", "split": "validation", "dataset": "d"}]
    pool = [{"query": query, "source": "p"} for query in ("bag laptop", "laptop bag red", "laptop bags")]

    def told(guard: str) -> set[str]:
        recipe = AugmentRecipe(guard=guard)
        return {row["query"] for row in choose_queries(pairs, pool, recipe, seed=1)}

    assert told("equal") == {"bag laptop", "laptop bag red"}
    assert told("words") == {"laptop bag red"}


def test_near_duplicates_of_a_candidate_are_dropped_and_the_first_stays() -> None:
    """Titles that share most words are one product to the student; 0 keeps them all."""
    titles = ["red steel kettle 1 l", "red steel kettle 1 l new", "blue kettle", "red steel kettle"]
    products = [{"title": title} for title in titles]
    picks = {0: 3, 1: 0, 2: 5, 3: -1}

    assert distinct(picks, products, 0.8) == {0: 3, 2: 5, 3: -1}
    assert distinct(picks, products, 0.5) == {0: 3, 2: 5}
    assert distinct(picks, products, 0.0) == picks


def test_statistics_tell_what_came_out() -> None:
    """Queries, pairs and shares by rank, per source."""
    rows = [
        {"query_source": "a", "query_id": str(query), "rank": rank}
        for query in range(2)
        for rank in (-1, 0, 4, 5, 19, 30, 31, 32)
    ] + [{"query_source": "b", "query_id": "9", "rank": -1}]

    told = statistics(rows)

    assert told["a"]["queries"] == 2
    assert told["a"]["pairs a query"] == 8
    assert told["a"]["share at random"] == 0.125
    assert told["a"]["share of ranks 1 to 5"] == told["a"]["share of ranks 6 to 20"] == 0.25
    assert told["b"]["share at random"] == 1
