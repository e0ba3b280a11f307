"""The synthetic shop."""

import numpy as np
import pytest

from training.data import synthetic
from training.data.synthetic import Item

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}


def test_same_seed_same_catalogue() -> None:
    """A seed fixes every product and label, and another seed gives others."""
    assert synthetic.judged_pairs(3, 20) == synthetic.judged_pairs(3, 20)
    assert synthetic.judged_pairs(3, 20) != synthetic.judged_pairs(4, 20)
    assert synthetic.pool(3, 20, 20) == synthetic.pool(3, 20, 20)


def test_labels_follow_the_rule() -> None:
    """Exact needs every attribute asked for, substitutes share the kind, complements are parts of it."""
    wish = Item("kettle", color="red")

    assert synthetic.judge(wish, Item("kettle", "1l", "red", "Norvik")) == "E"
    assert synthetic.judge(wish, Item("kettle", "1l", "blue", "Norvik")) == "S"
    assert synthetic.judge(wish, Item("kettle", "1l", "red", "Norvik", part=True)) == "C"
    assert synthetic.judge(wish, Item("sofa", "1m", "red", "Norvik")) == "I"
    assert synthetic.judge(wish, Item("sofa", "1m", "red", "Norvik", part=True)) == "I"


def test_all_four_labels_come_out() -> None:
    """A list holds several classes, so that it can be ranked."""
    assert {row["label"] for row in synthetic.judged_pairs(1, 30)} == {"E", "S", "C", "I"}


def test_what_fits_may_share_no_word_with_the_query_and_a_part_shares_all() -> None:
    """Kinds, colors and sizes are told by other names than asked for, and parts name what they are for by both."""
    rows = synthetic.judged_pairs(1, 200)
    shared = {
        label: [
            set(row["query"].split()) <= set(f"{row['title']} {row['description']}".lower().split())
            for row in rows
            if row["label"] == label
        ]
        for label in "EC"
    }

    assert 0.05 < np.mean(shared["E"]) < 0.7
    assert any(shared["C"])
    assert any(
        row["label"] == "E" and set(row["query"].split()).isdisjoint(row["title"].lower().split())
        for row in rows
    )


def test_words_alone_do_not_rank_it() -> None:
    """BM25 is ahead of any order, and far from the best one."""
    pytest.importorskip("bm25s", reason="the training environment is not installed")
    from training.measure.baselines import Bm25, random_order  # noqa: PLC0415
    from training.measure.metrics import ndcg  # noqa: PLC0415

    rows = synthetic.judged_pairs(1, 200)
    texts = {row["product_id"]: f"{row['title']} {row['description']}" for row in rows}
    index, lists = Bm25(list(texts.items())), {}
    for row in rows:
        lists.setdefault(row["query"], []).append((row["product_id"], GAINS[row["label"]]))
    found, by_chance = [], []
    for query, told in lists.items():
        gains = np.array([gain for _, gain in told])
        found.append(ndcg(index.scores(query, [product for product, _ in told]), gains, 10))
        by_chance.append(ndcg(random_order(len(told)), gains, 10))

    assert np.mean(by_chance) + 0.1 < np.mean(found) < 0.85
