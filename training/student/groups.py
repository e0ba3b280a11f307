"""The student's training items: a query with several products and their scores, from rows or from a stream.

Knows label shards; does not know models or losses.
Invariant: an epoch sees every scored pair once, but for the lists that the recipe repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import IterableDataset

from training.data.augment import UNLABELLED
from training.errors import StageError
from training.teacher.label import JUDGED_RANK

BATCH_ROWS = 4096  # rows of a shard in memory at a time, besides the shuffle buffer

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """One query's products with the teacher's scores, in order."""

    query: str
    products: tuple[Row, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Dealing:
    """How the products of a query become groups: at most `size` each, a list dealt `list_repeat` times over.

    A group of fewer than `least` is dropped: a product alone has no margin.
    """

    size: int
    least: int = 2
    list_repeat: int = 1

    def deal(self, members: Sequence[Row], seed: Sequence[int]) -> Iterator[Group]:
        """Yield the groups of one query's rows, which hold a `logit`, dealt out at random."""
        for again in range(self._times(members[0]["rank"])):
            parts = -(-len(members) // self.size)
            order = np.random.default_rng([*seed, again]).permutation(len(members))
            for part in range(parts):
                dealt = [members[i] for i in order[part::parts]]
                if len(dealt) >= self.least:
                    yield Group(dealt[0]["query"], tuple(dealt), tuple(row["logit"] for row in dealt))

    def count(self, products: int, rank: int) -> int:
        """Return how many groups a query of so many products gives; `rank` is that of its first row."""
        parts = -(-products // self.size)
        whole = sum(-(-(products - part) // parts) >= self.least for part in range(parts))
        return whole * self._times(rank)

    def _times(self, rank: int) -> int:
        return self.list_repeat if rank == JUDGED_RANK else 1


def groups_of(rows: Iterable[Row], dealing: Dealing, seed: int) -> list[Group]:
    """Group rows that hold a `logit` by query; rows of one query must be neighbours."""
    queries = groupby(rows, key=lambda row: row["query_id"])
    return [
        group for place, (_, each) in enumerate(queries) for group in dealing.deal(list(each), [seed, place])
    ]


def some_queries(queries: Iterable[str], count: int, seed: int) -> set[str] | None:
    """Return `count` queries drawn by the seed out of those named; None, for all, if `count` is 0 or not fewer."""
    known = list(dict.fromkeys(queries))
    if not 0 < count < len(known):
        return None
    drawn = np.random.default_rng(seed).choice(len(known), size=count, replace=False)
    return {known[place] for place in drawn}


class TaughtPairs:
    """The pairs of label shards that have a score in `column`, query by query and without loading a shard whole."""

    def __init__(self, shards: Sequence[Path], column: str, max_queries: int, seed: int) -> None:
        """Read the ids alone; StageError if a shard has no such column."""
        self.shards, self.column = tuple(shards), column
        self.sizes: dict[str, tuple[int, int]] = {}  # query id -> scored products, rank of the first
        for shard in self.shards:
            self._count(shard)
        self.kept = some_queries(self.sizes, max_queries, seed)
        if self.kept is not None:
            self.sizes = {query: size for query, size in self.sizes.items() if query in self.kept}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return sum(products for products, _ in self.sizes.values())

    def _count(self, shard: Path) -> None:
        names = pq.read_schema(shard).names
        if self.column not in names:
            raise StageError(
                f"distil.column {self.column!r} is not among the labels' columns: {', '.join(names)}"
            )
        for batch in pq.ParquetFile(shard).iter_batches(columns=["query_id", "rank", self.column]):
            scored = batch.filter(batch[self.column].is_valid())
            for query, rank in zip(scored["query_id"].to_pylist(), scored["rank"].to_pylist(), strict=True):
                products, first = self.sizes.get(query, (0, rank))
                self.sizes[query] = (products + 1, first)

    def rows(self, shards: Sequence[Path] | None = None) -> Iterator[Row]:
        """Yield the scored rows of some or all shards in order, the score as `logit`."""
        for shard in self.shards if shards is None else shards:
            columns = [*UNLABELLED.names, self.column]
            for batch in pq.ParquetFile(shard).iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns))):
                yield from self._scored(batch)

    def _scored(self, batch: pa.RecordBatch) -> Iterator[Row]:
        for row in batch.filter(batch[self.column].is_valid()).to_pylist():
            if self.kept is None or row["query_id"] in self.kept:
                yield row | {"logit": row[self.column]}


class GroupStream(IterableDataset):
    """Groups read from shards as training goes on, for more pairs than memory holds.

    Shards come in another order every epoch, and groups are shuffled in a buffer of `buffer` of them. A shard
    holds its queries whole. Under data parallelism every process reads all and keeps its share of the batches.
    """

    def __init__(self, pairs: TaughtPairs, dealing: Dealing, seed: int, buffer: int) -> None:
        """Take the pairs; nothing is read yet."""
        super().__init__()
        self.pairs, self.dealing, self.seed, self.buffer, self.epoch = pairs, dealing, seed, buffer, 0

    def __len__(self) -> int:
        """Return the number of groups of an epoch."""
        return sum(self.dealing.count(*size) for size in self.pairs.sizes.values())

    def set_epoch(self, epoch: int) -> None:
        """Deal and shuffle by the epoch; the Trainer calls it before each, and again on resumption."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Group]:
        """Yield an epoch's groups."""
        draws = np.random.default_rng([self.seed, self.epoch])
        shards = [self.pairs.shards[i] for i in draws.permutation(len(self.pairs.shards))]
        waiting: list[Group] = []
        queries = groupby(self.pairs.rows(shards), key=lambda row: row["query_id"])
        for place, (_, each) in enumerate(queries):
            for group in self.dealing.deal(list(each), [self.seed, self.epoch, place]):
                waiting.append(group)
                if len(waiting) > self.buffer:
                    chosen = int(draws.integers(len(waiting)))
                    waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
                    yield waiting.pop()
        yield from (waiting[i] for i in draws.permutation(len(waiting)))
