"""Which queries train and which are held out: training.data.splits."""

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.data.splits import Row, query_words, split_of, with_splits
from training.sections.data import DataRecipe, SourceRecipe, SplitRecipe

LONG, SHORT = 12, 3


def pairs(dataset: str, query: str, count: int) -> list[Row]:
    """Return `count` judged pairs of one query."""
    return [{"dataset": dataset, "query": query, "product_id": str(number)} for number in range(count)]


def splits(rows: list[Row], split: SplitRecipe, **held_out_from: int) -> dict[str, set[str]]:
    """Return the splits in which each query's pairs are."""
    sources = tuple(
        SourceRecipe(kind="table", name=name, path="x.csv", held_out_from=held_out_from.get(name, 1))
        for name in dict.fromkeys(row["dataset"] for row in rows)
    )
    found: dict[str, set[str]] = {}
    for row in with_splits(rows, DataRecipe(sources=sources, split=split)):
        found.setdefault(row["query"], set()).add(row["split"])
    return found


def test_splits_follow_the_normalised_query() -> None:
    """Spelling variants of one query share a split, and the shares come out about right."""
    split = SplitRecipe(validation=0.3, test=0.15)

    assert split_of("Wireless-Mouse", split) == split_of("  wireless mouse ", split)
    places = [split_of(f"query {i}", split) for i in range(4000)]
    assert abs(places.count("validation") / 4000 - 0.3) < 0.03
    assert abs(places.count("test") / 4000 - 0.15) < 0.03


def test_short_lists_are_not_held_out() -> None:
    """A query whose list is shorter than its source asks for is for training, whatever its hash says."""
    rows = pairs("shop", "red shoes", LONG) + pairs("shop", "blue hat", SHORT)

    found = splits(rows, SplitRecipe(validation=0.0, test=0.999), shop=LONG)

    assert found == {"red shoes": {"test"}, "blue hat": {"train"}}


def test_a_query_held_out_by_one_source_is_held_out_in_all() -> None:
    """The short list of one source follows the long list that another source has of the same query."""
    rows = pairs("long", "red shoes", LONG) + pairs("short", "Red  SHOES!", SHORT)

    found = splits(rows, SplitRecipe(validation=0.0, test=0.999), long=LONG, short=LONG)

    assert set().union(*found.values()) == {"test"}


@pytest.mark.parametrize("guard", ["equal", "words"])
def test_queries_of_the_same_words_share_a_split_if_the_guard_says_so(guard: str) -> None:
    """Under the guard of words, order and plural decide nothing; under the guard of equality, they do."""
    twins = [(f"item{number} covers", f"cover item{number}") for number in range(40)]
    rows = [row for twin in twins for query in twin for row in pairs("shop", query, 1)]

    found = splits(rows, SplitRecipe(validation=0.3, test=0.3, guard=guard))

    together = sum(found[one] == found[other] for one, other in twins)
    assert all(query_words(one) == query_words(other) for one, other in twins)
    assert (together == len(twins)) is (guard == "words")
