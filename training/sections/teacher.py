"""The sections of the stages in training.teacher.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from training.sections.models import FRESH_POSITIONS, FreshRecipe
from training.sections.section import FieldName, Section


class JudgeRecipe(Section):
    """A causal language model asked yes or no, zero-shot, on part of the pairs."""

    model: str
    gguf_file: str = ""
    prompt: str = (
        "A shopper searches an online shop for: {query}\n"
        "Is the following product itself a {query}, not an accessory or a part for one? Answer yes or no.\n"
        "Product:"
    )
    queries: int = Field(500, ge=0, description="unlabelled queries judged, with all their products")
    train_lists: int = Field(
        100, ge=0, description="labelled train queries judged too, longest first; they fit its calibration"
    )
    product_chars: int = Field(200, ge=16)
    batch: int = Field(8, ge=1, description="products of one query in one forward pass")
    shard_queries: int = Field(10, ge=1)

    @field_validator("prompt")
    @classmethod
    def _is_a_format(cls, prompt: str) -> str:
        try:
            prompt.format(query="")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(
                "only {query} may stand in braces; a brace itself is written twice, as {{ or }}"
            ) from error
        return prompt


class TeacherRecipe(Section):
    """The sequence-classification model fine-tuned on soft targets."""

    model: str = Field("", description="hub id or folder; empty makes a fresh body")
    fresh: FreshRecipe = FreshRecipe()
    gguf_file: str = ""
    lora_rank: int = Field(0, ge=0, description="0 trains all weights")
    lora_targets: tuple[str, ...] = ()
    fields: tuple[FieldName, ...] = ("title", "brand", "color", "category", "bullets", "description")
    field_chars: dict[FieldName, int] = Field({})
    max_length: int = Field(96, ge=16, description="tokens")
    epochs: float = Field(2.0, gt=0)
    learning_rate: float = Field(3e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    accumulation: int = Field(1, ge=1)
    warmup: float = Field(0.1, ge=0.0, le=1.0)
    weight_decay: float = Field(0.01, ge=0)
    bf16: bool = False
    targets: Literal["soft", "hard"] = "soft"
    judge_weight: float = Field(
        0.5, ge=0.0, le=1.0, description="loss weight of a judged pair beside a human one"
    )
    activation_checkpointing: bool = False
    report_to: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_a_fresh_body(self) -> Self:
        if not self.model and self.max_length > FRESH_POSITIONS:
            raise ValueError(f"max_length is over {FRESH_POSITIONS}, the positions of a fresh body")
        return self


class LabelRecipe(Section):
    """Scoring of the unlabelled pairs by the teacher."""

    max_queries: int = Field(
        0, ge=0, description="unlabelled queries scored, in the order of augment; 0 is all"
    )
    backend: Literal["transformers", "vllm"] = "transformers"
    shard_queries: int = Field(200, ge=1)
    batch_pairs: int = Field(64, ge=1)
    bf16: bool = False


class EncoderRecipe(Section):
    """One zero-shot sentence encoder of the blend."""

    model: str
    weight: float = Field(1.0, gt=0.0)


class BlendRecipe(Section):
    """The members of the teacher ensemble and their weights, at equal spread within a query."""

    teacher: float = Field(1.0, gt=0.0, description="weight of the fine-tuned teacher's logit")
    judge: float = Field(0.0, ge=0.0, description="weight of the judge's log-odds, on the queries it judged")
    labels: float = Field(0.0, ge=0.0, description="weight of the human soft target, on the train lists")
    encoders: tuple[EncoderRecipe, ...] = ()
    bf16: bool = False


class PanelRecipe(Section):
    """Held-out scores of the blend and of each of its members."""

    min_pairs: int = Field(5, ge=2, description="judged products a list needs")
    shard_queries: int = Field(2, ge=1)
