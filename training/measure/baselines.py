"""What the student has to beat without any model: no order at all, and BM25.

Knows texts, not labels: a baseline sees the query and the product text only.
Invariant: a score depends on the query, the product and the corpus, never on the list it is in.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import bm25s
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data.lists import JudgedList

Scores = NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")  # scripts written without spaces


def random_order(products: int) -> Scores:
    """Equal scores: every metric then reports its expectation over random orders."""
    return np.zeros(products, np.float32)


def words(text: str) -> list[str]:
    """Lower-cased words; runs of kana, han or hangul become overlapping pairs of characters.

    >>> words("USB-C Cable, 2 m")
    ['usb', 'c', 'cable', '2', 'm']
    >>> words("電池式")
    ['電池', '池式']
    """
    found = []
    for word in _WORD.findall(text.lower()):
        if _UNSPACED.fullmatch(word) and len(word) > 2:
            found.extend(word[start : start + 2] for start in range(len(word) - 1))
        else:
            found.append(word)
    return found


class Bm25:
    """BM25 with the statistics of a whole product corpus, not of the list being ranked.

    Pass every distinct product of the data set (all splits: product text holds no label), so that
    document frequencies and lengths are those a search engine over that catalogue would have.
    Formula: the Lucene variant, idf(t) * f / (f + k1 * (1 - b + b * length / mean length)) summed
    over the words t of the query; Robertson and Zaragoza, FnTIR 3(4), 2009.
    """

    def __init__(self, corpus: Sequence[tuple[str, str]], *, k1: float = 1.2, b: float = 0.75) -> None:
        """`corpus` holds (product id, product text), each id once."""
        self._rows = {product_id: row for row, (product_id, _) in enumerate(corpus)}
        if len(self._rows) != len(corpus):
            raise ValueError("a product id occurs twice in the corpus")
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
        self._index.index([words(text) for _, text in corpus], show_progress=False)

    def scores(self, query: str, product_ids: Sequence[str]) -> Scores:
        """Scores [n] of the given products of the corpus; an unknown id raises KeyError."""
        rows = [self._rows[product_id] for product_id in product_ids]
        known = [word for word in words(query) if word in self._index.vocab_dict]
        if not known:
            return random_order(len(rows))
        return np.asarray(self._index.get_scores(known), np.float32)[rows]


def bm25_scores(pairs: Path, lists: Sequence[JudgedList], fields: Sequence[str]) -> list[Scores]:
    """BM25 with the statistics of every product of the list's data set, whatever its split."""
    rows = pq.read_table(pairs, columns=["dataset", "product_id", *fields]).to_pylist()
    return _over(((row["dataset"], row["product_id"], [row[f] or "" for f in fields]) for row in rows), lists)


def bm25_of_lists(
    lists: Sequence[JudgedList], fields: Sequence[str], corpus: Sequence[JudgedList]
) -> list[Scores]:
    """BM25 with the statistics of the products of all lists of a corpus, of which the lists are some."""
    products = (
        (judged.dataset, product_id, [getattr(product, field) for field in fields])
        for judged in corpus
        for product_id, product in zip(judged.product_ids, judged.products, strict=True)
    )
    return _over(products, lists)


def own_order(lists: Sequence[JudgedList]) -> list[Scores] | None:
    """The order that each list came in, products without a rank last; None if no list has one."""
    if not any(judged.ranks for judged in lists):
        return None
    last = max(rank for judged in lists for rank in judged.ranks if rank is not None) + 1
    return [
        -np.array(
            [last if rank is None else rank for rank in judged.ranks or (None,) * len(judged)], np.float32
        )
        for judged in lists
    ]


def _over(products: Iterable[tuple[str, str, Sequence[str]]], lists: Sequence[JudgedList]) -> list[Scores]:
    corpora: dict[str, dict[str, str]] = {}
    for dataset, product_id, texts in products:
        corpora.setdefault(dataset, {})[product_id] = " ".join(texts)
    indexes = {dataset: Bm25(list(corpus.items())) for dataset, corpus in corpora.items()}
    return [indexes[judged.dataset].scores(judged.query, judged.product_ids) for judged in lists]
