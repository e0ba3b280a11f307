"""Build, save and load the student: a small BERT cross-encoder with its text contract.

Knows bodies, tokenizers and the text contract; does not know losses.
Invariant: a student folder holds all that scoring needs, and its text goes through bundle.text alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from bundle.errors import BundleError
from bundle.manifest import FieldSpec, PairTemplate, TextContract
from bundle.rows import Row, assemble
from bundle.text import PairEncoder
from training.errors import StageError
from training.models.batching import batches_by_length
from training.models.fresh import fresh_body
from training.models.hub import load_model, load_pretrained, one_line
from training.sections.student import CONTRACT_FILE, DistilRecipe, TextRecipe
from training.student.reduce import most_active, reduced

ACTIVITY_TEXTS = 512  # texts that show which units of a body are active


def build(
    recipe: DistilRecipe, weights: str, texts: Iterable[str]
) -> tuple[BertForSequenceClassification, Any]:
    """Return a student to train and its tokenizer: a pretrained body's chosen layers, or a fresh body."""
    if not recipe.model:
        return fresh_body(texts, recipe.fresh)
    tokenizer = load_pretrained(AutoTokenizer, weights)
    body = load_body(weights, recipe.model)
    check_shape(recipe, body.config)
    kept = recipe.layers or tuple(range(body.config.num_hidden_layers))
    small = _reduced(body, kept, tokenizer, texts, recipe.hidden) if recipe.hidden else body
    layers = range(len(kept)) if recipe.hidden else kept
    config = BertConfig(**small.config.to_dict() | {"num_hidden_layers": len(kept), "num_labels": 1})
    student = BertForSequenceClassification(config)
    student.bert.embeddings.load_state_dict(small.embeddings.state_dict())
    for layer, source in zip(student.bert.encoder.layer, layers, strict=True):
        layer.load_state_dict(small.encoder.layer[source].state_dict())
    return student, tokenizer


def check_shape(recipe: DistilRecipe, config: BertConfig) -> None:
    """StageError if the recipe keeps layers or hidden units that the pretrained body does not have."""
    if any(not 0 <= layer < config.num_hidden_layers for layer in recipe.layers):
        raise StageError(f"distil.layers: {recipe.model} has {config.num_hidden_layers} layers, from 0 on")
    size = config.hidden_size // config.num_attention_heads
    if recipe.hidden > config.hidden_size or recipe.hidden % size:
        raise StageError(
            f"distil.hidden: {recipe.hidden} is not a multiple of {size}, the size of a head, "
            f"up to {config.hidden_size}"
        )


def load_body(weights: str, name: str) -> BertModel:
    """Return a pretrained body in float32; StageError, under the recipe's name for it, if it is no BERT."""
    body = load_model(AutoModel, weights, dtype=torch.float32)
    if not isinstance(body, BertModel):
        raise StageError(f"student body {name} is a {type(body).__name__}; only BERT bodies can be students")
    return body


def _reduced(
    body: BertModel, kept: Sequence[int], tokenizer: Any, texts: Iterable[str], hidden: int
) -> BertModel:
    told = [text for _, text in zip(range(ACTIVITY_TEXTS), texts, strict=False)]
    batches = (
        tokenizer(told[start : start + 32], padding=True, truncation=True, max_length=64, return_tensors="pt")
        for start in range(0, len(told), 32)
    )
    return reduced(body, kept, most_active(body.eval(), batches, kept, hidden))


def text_contract(recipe: TextRecipe, tokenizer: Any) -> TextContract:
    """Fix the text contract: the recipe's budgets with the tokenizer's template and vocabulary."""
    marker = tokenizer.convert_tokens_to_ids(tokenizer.unk_token)
    ids = tokenizer(tokenizer.unk_token, tokenizer.unk_token)["input_ids"]
    first, second = (i for i, token in enumerate(ids) if token == marker)
    template = PairTemplate(
        prefix=tuple(ids[:first]),
        middle=tuple(ids[first + 1 : second]),
        suffix=tuple(ids[second + 1 :]),
        pad_id=tokenizer.pad_token_id,
        type_ids=True,
    )
    return TextContract(
        version=1,
        query_max_chars=recipe.query_max_chars,
        query_max_tokens=recipe.query_max_tokens,
        fields=tuple(FieldSpec(**field.model_dump()) for field in recipe.fields),
        max_length=recipe.max_length,
        vocabulary=len(tokenizer),
        template=template,
    )


@dataclass(frozen=True, slots=True)
class Student:
    """A cross-encoder of one logit, its pair encoder and the text contract both keep."""

    model: BertForSequenceClassification
    encoder: PairEncoder
    contract: TextContract

    def tensors(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return padded input tensors, int64 [n, longest]."""
        return {
            name: torch.from_numpy(array) for name, array in assemble(rows, self.contract.template).items()
        }

    @torch.inference_mode()
    def score(self, rows: Sequence[Row], batch: int = 64) -> NDArray[np.float32]:
        """Return the logits of encoded rows, float32 [n], computed by length to pad little."""
        out = np.empty(len(rows), np.float32)
        for chosen in batches_by_length([len(row) for row in rows], batch):
            out[chosen] = self.model(**self.tensors([rows[i] for i in chosen])).logits[:, 0].numpy()
        return out


def save(model: BertForSequenceClassification, tokenizer: Any, contract: TextContract, folder: Path) -> None:
    """Write a student folder: safetensors weights, tokenizer.json and the text contract."""
    model.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / CONTRACT_FILE).write_text(contract.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Student:
    """Read a student folder; the model is in eval mode and float32. StageError if it is broken."""
    try:
        contract = TextContract.model_validate_json((folder / CONTRACT_FILE).read_bytes())
        encoder = PairEncoder((folder / "tokenizer.json").read_bytes(), contract)
    except (OSError, ValueError, BundleError) as error:
        raise StageError(f"{folder} holds no whole student ({one_line(error)})") from error
    model = load_model(BertForSequenceClassification, str(folder), dtype=torch.float32).eval()
    return Student(model, encoder, contract)
