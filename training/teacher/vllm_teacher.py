"""Score pairs with a fine-tuned decoder teacher on vLLM, token for token as transformers would.

Knows vLLM's offline classification; does not know shards.
Invariant: the token ids are those of the transformers teacher, and the logit is raw: no activation.
Needs vLLM in an environment of its own (its pins exclude the serving ones) and a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from training.errors import StageError
from training.models.hub import load_pretrained
from training.sections.teacher import TeacherRecipe
from training.teacher.teacher import Row, Teacher


class VllmTeacher:
    """A teacher folder behind `vllm.LLM(runner="pooling", convert="classify")`, with prefix caching."""

    def __init__(self, folder: Path, recipe: TeacherRecipe) -> None:
        """Load the folder; StageError where vLLM is not installed."""
        try:
            from vllm import LLM, PoolingParams  # noqa: PLC0415 - the vllm extra
        except ImportError as error:
            raise StageError(
                'label.backend = "vllm" needs vLLM: install it in an environment of its own'
            ) from error
        self.encoder = Teacher(None, load_pretrained(AutoTokenizer, str(folder)), recipe)
        self.model = LLM(
            model=str(folder),
            runner="pooling",
            convert="classify",
            dtype="bfloat16",
            max_model_len=recipe.max_length,
            enable_prefix_caching=True,
        )
        self.raw = PoolingParams(use_activation=False)

    def score(self, rows: Sequence[Row], batch: int = 64, *, bf16: bool = True) -> NDArray[np.float32]:  # noqa: ARG002
        """Return one relevance logit per row, float32 [n]; vLLM batches by itself, always in bfloat16."""
        prompts: list[Any] = [{"prompt_token_ids": one["input_ids"]} for one in self.encoder.encode(rows)]
        outputs = self.model.classify(prompts, pooling_params=self.raw, use_tqdm=False)
        return np.array([output.outputs.probs[0] for output in outputs], np.float32)
