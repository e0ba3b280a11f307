"""Judged lists: the products of one query with their human labels, ready to be ranked.

Knows the columns of pairs.parquet; does not know models.
Invariant: a list that no ranking can change (one gain only) or that is too short is never measured on.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bundle.manifest import Label
from bundle.rows import Row
from bundle.text import PairEncoder, Product
from training.data.sources import FIELDS
from training.errors import StageError

# The served classes, by grade 0..3. Their gains are the teacher's soft targets, so that a served score reads as
# expected relevance: a sure substitute scores 0.5. The score is monotone in the logit under any ascending gains.
LABELS = (
    Label(name="irrelevant", gain=0.0),
    Label(name="complement", gain=0.0),
    Label(name="substitute", gain=0.5),
    Label(name="exact", gain=1.0),
)

# ESCI gains under the map that the published evaluation script uses: it has S and C the other way round.
SWAPPED_GAINS: Mapping[str, float] = {"E": 1.0, "S": 0.01, "C": 0.1, "I": 0.0}


@dataclass(frozen=True, slots=True)
class JudgedList:
    """One query of one data set with its judged products; every tuple has one entry per product."""

    dataset: str
    query_id: str
    query: str
    product_ids: tuple[str, ...]
    products: tuple[Product, ...]
    labels: tuple[str | None, ...]  # E, S, C, I; None in graded data sets
    grades: tuple[int, ...]
    gains: NDArray[np.float64]
    ranks: tuple[float | None, ...] = ()  # the list's own order, where its file has one

    def __len__(self) -> int:
        return len(self.products)

    def swapped_gains(self) -> NDArray[np.float64] | None:
        """Gains under the swapped ESCI map; None where the labels are plain grades."""
        if None in self.labels:
            return None
        return np.array([SWAPPED_GAINS[str(label)] for label in self.labels])


def read_lists(pairs: Path, split: str) -> list[JudgedList]:
    """Read every query of a split with its judged products, in file order."""
    return lists_of(pq.read_table(pairs, filters=[("split", "=", split)]).to_pylist())


def lists_of(rows: Iterable[Mapping[str, Any]]) -> list[JudgedList]:
    """Make one list of each query's rows, in the order of the rows."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["query_id"]), []).append(row)
    return [_judged_list(group) for group in groups.values()]


def rankable(lists: Iterable[JudgedList], min_pairs: int = 5) -> list[JudgedList]:
    """Keep the lists on which a ranking can be told from another: long enough, two different gains."""
    return [judged for judged in lists if len(judged) >= min_pairs and len(set(judged.gains)) > 1]


def encode_lists(encoder: PairEncoder, lists: Sequence[JudgedList]) -> list[Row]:
    """Token rows of all pairs, list after list."""
    return [row for judged in lists for row in encoder.encode(judged.query, judged.products)]


def encode_pairs(encoder: PairEncoder, pairs: Iterable[tuple[str, Product]]) -> list[Row]:
    """Token rows of single pairs, in their order."""
    return [row for query, product in pairs for row in encoder.encode(query, [product])]


def digest(lists: Iterable[JudgedList]) -> str:
    """Return the sha256 of what lists say: their queries, product ids and gains."""
    told = [[judged.query, judged.product_ids, judged.gains.tolist()] for judged in lists]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def by_list(values: NDArray[Any], lists: Sequence[JudgedList]) -> list[NDArray[Any]]:
    """Cut values [pairs], in the order of `encode_lists`, into one array per list."""
    return np.split(values, np.cumsum([len(judged) for judged in lists])[:-1])


def read_scores(path: Path, lists: Sequence[JudgedList], column: str = "score") -> list[NDArray[np.floating]]:
    """The scores of the lists that a stage wrote; StageError if the file lacks one of their pairs."""
    known = {
        (row["dataset"], row["query_id"], row["product_id"]): row[column]
        for row in pq.read_table(path, columns=["dataset", "query_id", "product_id", column]).to_pylist()
    }
    try:
        return [np.array([known[j.dataset, j.query_id, p] for p in j.product_ids]) for j in lists]
    except KeyError as error:
        stage = path.parent.name
        raise StageError(f"{path.name} has no score for {error}; run the {stage} stage again") from error


def product_of(row: Mapping[str, Any]) -> Product:
    """The product of a row of pairs.parquet."""
    return Product(**{field: row[field] or "" for field in FIELDS})


def _judged_list(rows: Sequence[Mapping[str, Any]]) -> JudgedList:
    first = rows[0]
    ranks = tuple(row.get("rank") for row in rows)
    return JudgedList(
        dataset=first["dataset"],
        query_id=first["query_id"],
        query=first["query"],
        product_ids=tuple(row["product_id"] for row in rows),
        products=tuple(product_of(row) for row in rows),
        labels=tuple(row["label"] for row in rows),
        grades=tuple(row["grade"] for row in rows),
        gains=np.array([row["gain"] for row in rows], np.float64),
        ranks=() if ranks.count(None) == len(ranks) else ranks,
    )
