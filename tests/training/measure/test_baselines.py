"""The baselines rank as they should, by corpus statistics."""

import numpy as np
import pytest

pytest.importorskip("bm25s", reason="training runs with the train extra")

from training.measure import baselines, metrics

CORPUS = [
    ("a", "red garden hose 20 m"),
    ("b", "garden chair"),
    ("c", "hose clamp steel"),
    ("d", "garden table"),
    ("e", "電池式ランタン"),
]


def test_random_order_is_the_floor() -> None:
    """Scoring by the random baseline gives the analytic floor of NDCG."""
    gains = [1.0, 0.1, 0.0, 0.0]

    assert metrics.random_ndcg(gains, 2) == metrics.ndcg(baselines.random_order(4), gains, 2)


def test_bm25_weighs_words_by_the_whole_corpus() -> None:
    """Which of two words counts more is decided by products outside the list."""
    hoses = [(f"hose{number}", "hose reel wheel") for number in range(9)]
    chair, clamp = baselines.Bm25(CORPUS).scores("garden hose", ["b", "c"])
    chair_among_hoses, clamp_among_hoses = baselines.Bm25([*CORPUS, *hoses]).scores("garden hose", ["b", "c"])

    assert clamp > chair > 0
    assert chair_among_hoses > clamp_among_hoses > 0


def test_bm25_score_does_not_depend_on_the_list() -> None:
    """A product's score is the same alone and among others."""
    index = baselines.Bm25(CORPUS)

    assert index.scores("garden hose", ["a"])[0] == index.scores("garden hose", ["d", "a", "b"])[1]


def test_bm25_matches_inside_unspaced_text() -> None:
    """A Japanese query finds the product although neither has spaces."""
    scores = baselines.Bm25(CORPUS).scores("ランタン", [product for product, _ in CORPUS])

    assert int(np.argmax(scores)) == 4
    assert np.count_nonzero(scores) == 1


def test_bm25_of_unknown_words_is_a_tie() -> None:
    """A query that shares no word with the corpus scores every product 0."""
    assert not baselines.Bm25(CORPUS).scores("!!! zzz", ["a", "b"]).any()


def test_bm25_refuses_unknown_and_repeated_products() -> None:
    """A product outside the corpus, or twice in it, is an error and no silent zero."""
    with pytest.raises(KeyError):
        baselines.Bm25(CORPUS).scores("hose", ["nope"])
    with pytest.raises(ValueError, match="twice"):
        baselines.Bm25([*CORPUS, CORPUS[0]])
