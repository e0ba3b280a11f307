"""The sections of the stages in training.student, and the text that a student reads.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from training.sections.models import FreshRecipe
from training.sections.section import Section

CONTRACT_FILE = "text_contract.json"  # in a student's folder
FIXED_TOKENS = 3  # of a BERT's pair of texts: one before, one between, one after


class FieldRecipe(Section):
    """One product field the student sees."""

    name: Literal["title", "brand", "color", "category", "bullets", "description", "text"]
    max_chars: int = Field(ge=1)
    max_tokens: int = Field(ge=1)


class TextRecipe(Section):
    """The student's text contract before its tokenizer is known."""

    query_max_chars: int = Field(256, ge=1)
    query_max_tokens: int = Field(24, ge=1)
    max_length: int = Field(72, ge=8, le=8192)
    fields: tuple[FieldRecipe, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.query_max_tokens + FIXED_TOKENS >= self.max_length:
            raise ValueError("max_length leaves no room for a product beside query_max_tokens")
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError("a field is listed twice")
        return self


class DistilRecipe(Section):
    """The student's shape and its training."""

    model: str = Field("", description="pretrained body, hub id or folder; empty makes a fresh one")
    fresh: FreshRecipe = FreshRecipe()
    layers: tuple[int, ...] = Field((), description="layers of the pretrained body to keep; empty keeps all")
    hidden: int = Field(
        0, ge=0, description="hidden units of the pretrained body to keep, the most active; 0 keeps all"
    )
    align_epochs: float = Field(
        0.0, ge=0, description="epochs that bring the student's token states near the pretrained body's first"
    )
    align_learning_rate: float = Field(5e-4, gt=0)
    learn_from: Literal["teacher", "labels"] = Field(
        "teacher", description="labels: the human soft targets of the train split alone, as a baseline"
    )
    targets: Literal["soft", "hard"] = Field(
        "soft", description="with learn_from labels: ESCI as 1, 0.5, 0, 0, or exact against the rest"
    )
    column: str = Field(
        "logit", description="column of the label shards to learn from: the blend or a member"
    )
    max_queries: int = Field(0, ge=0, description="queries learnt from, drawn by the seed; 0 is all")
    list_repeat: int = Field(1, ge=1, description="times an epoch sees the labelled train lists, dealt anew")
    loss: Literal["margin_mse", "pointwise_mse", "pointwise_bce", "listwise_kl"] = "margin_mse"
    margin: Literal["logit", "probability"] = Field("logit", description="what margin_mse subtracts")
    pointwise: float = Field(
        0.0, ge=0.0, description="weight of a pointwise_mse term beside the loss, which fixes the level"
    )
    group: int = Field(10, ge=2, description="products per query in one step")
    queries_per_batch: int = Field(8, ge=1)
    chunk: int = Field(
        20, ge=1, description="pairs of a batch in one forward pass, sorted by length to pad little"
    )
    epochs: float = Field(2.0, gt=0)
    learning_rate: float = Field(1e-4, gt=0)
    warmup: float = Field(0.05, ge=0.0, le=1.0)
    weight_decay: float = Field(0.01, ge=0)
    bf16: bool = False
    average_with: tuple[str, ...] = Field(
        (),
        description="finished student folders of the same body, whose weights are averaged with this one's",
    )
    checkpoint_steps: int = Field(500, ge=1)
    patience: int = Field(
        0,
        ge=0,
        description="checkpoints without a better NDCG@10 on the validation lists before it stops; 0 never stops",
    )
    stream: bool = Field(
        default=False, description="read the label shards as training goes on; else they are held in memory"
    )
    shuffle_groups: int = Field(10_000, ge=1, description="groups held to draw from while streaming")
    report_to: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream and self.learn_from == "labels":
            raise ValueError("stream reads the teacher's shards; the human labels are read whole")
        if (self.hidden or self.align_epochs) and not self.model:
            raise ValueError("hidden and align_epochs need a pretrained body: name one in `model`")
        return self


class CalibrateRecipe(Section):
    """Fit of the class probabilities on judged training pairs."""

    datasets: tuple[str, ...] = Field(
        (), description="data sets to fit on; empty takes those with ESCI labels, else all"
    )
    split: Literal["train", "validation"] | None = Field(
        None,
        description="lists to fit on; not said, train, or validation where the student learnt from labels alone: "
        "such a one knows its train lists too well",
    )
    folds: int = Field(5, ge=2, le=50, description="query-wise folds of the out-of-fold calibration error")
