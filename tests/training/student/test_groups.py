"""Training items out of rows and out of shards: whole, once, shuffled and in bounded memory."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")

import pyarrow.parquet as pq  # noqa: E402

from training.data.augment import UNLABELLED  # noqa: E402
from training.errors import StageError  # noqa: E402
from training.student.groups import Dealing, GroupStream, TaughtPairs, groups_of, some_queries  # noqa: E402
from training.teacher.label import JUDGED_RANK  # noqa: E402

SIZES = (1, 2, 3, 7, 12, 5, 25, 4)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Eight queries in three shards; the last query's list is human-labelled, and one pair has no score."""
    schema = UNLABELLED.append(pa.field("logit", pa.float32()))
    paths = []
    for number, queries in enumerate(((0, 1, 2), (3, 4), (5, 6, 7))):
        rows = [
            dict.fromkeys(UNLABELLED.names, "x")
            | {"query_id": f"q{query}", "product_id": f"{query}-{place}", "logit": float(place)}
            | {"rank": JUDGED_RANK if query == 7 else place}
            for query in queries
            for place in range(SIZES[query])
        ]
        if number == 0:
            rows[-1]["logit"] = None
        paths.append(tmp_path / f"labels-{number:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema), paths[-1])
    return paths


def told(groups: object) -> list[tuple[str, ...]]:
    """The product ids of groups."""
    return [tuple(row["product_id"] for row in group.products) for group in groups]


def test_a_stream_yields_what_the_rows_in_memory_do(shards: list[Path]) -> None:
    """Every scored pair of a query with two of them comes once an epoch, a labelled list as often as asked."""
    pairs, dealing = TaughtPairs(shards, "logit", 0, seed=1), Dealing(10, list_repeat=3)
    stream = GroupStream(pairs, dealing, seed=1, buffer=3)

    streamed = told(stream)
    held = told(groups_of(pairs.rows(), dealing, seed=1))

    assert len(pairs) == sum(SIZES) - 1
    assert len(streamed) == len(stream) == len(held)
    wanted = [f"{query}-{i}" for query in (1, 2, 3, 4, 5, 6) for i in range(SIZES[query])]
    wanted.remove("2-2")
    assert sorted(i for g in streamed for i in g) == sorted(wanted + 3 * [f"7-{i}" for i in range(4)])
    assert max(map(len, streamed)) <= 10


def test_epochs_of_a_stream_differ_and_can_be_had_again(shards: list[Path]) -> None:
    """Another epoch has another order and other groups; the same epoch has the same, as resumption needs."""
    stream = GroupStream(TaughtPairs(shards, "logit", 0, seed=1), Dealing(10), seed=1, buffer=3)
    first = told(stream)
    stream.set_epoch(1)
    second = told(stream)
    stream.set_epoch(0)

    assert first == told(stream) != second


def test_the_stream_counts_groups_that_dealing_drops(shards: list[Path]) -> None:
    """For every size and floor the announced number of groups is the number that comes."""
    for size in (2, 3, 4, 10):
        for least in (1, 2):
            pairs = TaughtPairs(shards, "logit", 0, seed=1)
            stream = GroupStream(pairs, Dealing(size, least, 2), seed=1, buffer=2)
            assert len(told(stream)) == len(stream), (size, least)


def test_a_column_that_is_not_there_is_named(shards: list[Path]) -> None:
    """The message lists the columns there are."""
    with pytest.raises(StageError, match=r"'judge' is not among the labels' columns: query_id.*logit"):
        TaughtPairs(shards, "judge", 0, seed=1)


def test_queries_are_drawn_whole_and_by_the_seed(shards: list[Path]) -> None:
    """A smaller share of the labels keeps whole queries, the same ones for the same seed."""
    pairs = TaughtPairs(shards, "logit", 3, seed=1)
    kept = {row["query_id"] for row in pairs.rows()}

    assert kept == pairs.kept == set(pairs.sizes)
    assert len(kept) == 3
    assert len(pairs) == len(list(pairs.rows()))
    names = [f"q{i}" for i in range(20)]
    assert (
        some_queries(names, 5, seed=1) == some_queries(names * 2, 5, seed=1) != some_queries(names, 5, seed=2)
    )
    assert some_queries(names, 0, seed=1) is some_queries(names, 20, seed=1) is None
