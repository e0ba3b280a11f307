"""A sentence encoder that nobody fine-tuned: it retrieves, has a say in the blend, and is a baseline.

Knows texts, not labels.
Invariant: a vector depends on its text alone, up to rounding.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from training.models.batching import batches_by_length
from training.models.hub import load_model, load_pretrained

Scores = NDArray[np.float32]


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
        vectors = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        lengths = [len(text) for text in texts]
        for rows in batches_by_length(lengths, self._batch_rows, longest_first=True):
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
