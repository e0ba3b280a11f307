"""What the student has to beat: no model at all, BM25, and a bi-encoder nobody fine-tuned.

Knows texts, not labels: a baseline sees the query and the product text only.
Invariant: a score depends on the query, the product and the corpus, never on the list it is in.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from training.models.hub import load_model, load_pretrained

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


class BiEncoder:
    """Zero-shot sentence encoder: cosine of mean-pooled query and product embeddings.

    Takes the hub id or folder of a Hugging Face encoder, such as all-MiniLM-L6-v2.
    Reference: Reimers and Gurevych, Sentence-BERT, EMNLP 2019.
    """

    def __init__(
        self, folder: Path | str, *, max_tokens: int = 128, batch_rows: int = 64, bf16: bool = False
    ) -> None:
        self._bf16 = bf16
        self._tokenizer = load_pretrained(AutoTokenizer, str(folder))
        self._model = load_model(AutoModel, str(folder), dtype=torch.float32).eval()
        self._max_tokens = max_tokens
        self._batch_rows = batch_rows

    def scores(self, query: str, texts: Sequence[str]) -> Scores:
        """Cosine [n] between the query and each text."""
        vectors = self.embed([query, *texts])
        return vectors[1:] @ vectors[0]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Scores:
        """Unit vectors [n, hidden], longest texts first so that a batch pads little."""
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        vectors = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), self._batch_rows):
            rows = order[start : start + self._batch_rows]
            vectors[rows] = self._embed_batch([texts[row] for row in rows])
        return vectors

    def _embed_batch(self, texts: list[str]) -> Scores:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            hidden = self._model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=-1).numpy()
