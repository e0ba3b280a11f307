"""Tests of benchmarks/peers/lists.py: every reranker gets the same tokens, and padding is counted by its rule."""

from benchmarks.peers.lists import Ask, Lists, joined
from benchmarks.shared.target import REPOSITORY
from bundle import read_bundle

BUNDLE = read_bundle(REPOSITORY / "models", "default")
LISTS = Lists(BUNDLE)


def test_lists_have_their_size_and_repeat_only_what_is_missing() -> None:
    """A list of 50 has 50 products, all different; one longer than the file has each of them once at least."""
    short, long = LISTS.make(50, 2, seed=1)[0], LISTS.make(200, 1, seed=1)[0]

    assert 50 == len(short.texts) == len({tuple(each.items()) for each in short.products})
    assert 200 == len(long.texts)
    assert len(LISTS.products) == len({tuple(each.items()) for each in long.products}) < 200


def test_the_same_seed_gives_the_same_lists() -> None:
    """Runs can be compared."""
    assert LISTS.make(10, 3, seed=1) == LISTS.make(10, 3, seed=1) != LISTS.make(10, 3, seed=2)


def test_texts_have_the_tokens_of_fields() -> None:
    """A product whose text would be read otherwise than its fields is told, and loses words until it is read alike."""
    long = {"query": "lamp", "title": "oak " * 60, "brand": "Norvale", "color": "Black"}
    shortened = LISTS._shorten(long)

    assert not LISTS._is_same(long)
    assert LISTS._is_same(shortened)
    assert 30 < len(shortened["title"].split()) < 60
    assert {**long, "title": "Oak lamp"} == LISTS._shorten({**long, "title": "Oak lamp"})
    assert "Oak lamp Black" == joined({"title": "Oak lamp", "brand": "", "color": "Black"})


def test_padding_follows_the_rule() -> None:
    """By hand, for pairs of 5, 17, 9 and 8 tokens whose texts sort as 17, 9, 8, 5."""
    ask = Ask("q", [], ["a", "aaaa", "aaa", "aa"], [5, 17, 9, 8])
    counted = {rule: LISTS.computed_tokens(ask, rule) for rule in ("none", "list", "chunks 2", "sorted 2")}

    assert {"none": 5 + 17 + 9 + 8, "list": 4 * 17, "chunks 2": 34 + 18, "sorted 2": 34 + 16} == counted
