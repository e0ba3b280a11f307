"""Scores a list with ONNX Runtime as most teams write it: one batch, padded to its longest pair, all cores inside a run.

Knows a folder with model.onnx and tokenizer.json; does not know who asks.
Invariant: none beyond the runtime's own; with a dynamic int8 graph a score depends on the rest of its batch.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer


class OrtScorer:
    """One session and one tokenizer."""

    def __init__(self, folder: Path, threads: int, model: str = "model.onnx") -> None:
        """Open both; pairs are cut at the tokenizer's `model_max_length`."""
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(config["model_max_length"])
        self._tokenizer.enable_padding(
            pad_id=self._tokenizer.token_to_id(config["pad_token"]), pad_token=config["pad_token"]
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(folder / model), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return the sigmoid of each pair's logit, in order."""
        encoded = self._tokenizer.encode_batch([(query, document) for document in documents])
        feeds = {
            "input_ids": np.array([each.ids for each in encoded], dtype=np.int64),
            "attention_mask": np.array([each.attention_mask for each in encoded], dtype=np.int64),
            "token_type_ids": np.array([each.type_ids for each in encoded], dtype=np.int64),
        }
        return self.compute(feeds)

    def compute(self, feeds: dict[str, NDArray[np.int64]]) -> list[float]:
        """Run the graph and return the sigmoids of its logits."""
        (logits,) = self._session.run(None, {name: feeds[name] for name in self._inputs})
        scores: list[float] = (1 / (1 + np.exp(-logits.reshape(-1)))).tolist()
        return scores
