"""The sections of a recipe from data to the teacher's labels, one per stage.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FRESH_POSITIONS = 512  # tokens that a fresh body can tell the places of


class Section(BaseModel):
    """A frozen part of the recipe that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


FieldName = Literal["title", "brand", "color", "category", "bullets", "description"]
ColumnName = FieldName | Literal["query_id", "query", "product_id", "label", "grade", "locale"]


class SourceRecipe(Section):
    """One source of judged pairs."""

    kind: Literal["judged", "esci_parquet", "table", "synthetic"]
    name: str
    path: str = ""
    queries_file: str = Field("", description="file of the queries, where `path` has their ids alone")
    products_file: str = Field("", description="file of the products, where `path` has their ids alone")
    locales: tuple[str, ...] = ()
    large_version: bool = False
    columns: dict[ColumnName, str] = {}
    label_map: dict[str, Literal["E", "S", "C", "I"]] = {}
    seed: int = 0
    queries: int = Field(60, ge=4)
    held_out_from: int = Field(
        1,
        ge=1,
        description="judged products from which a query may be held out; shorter lists are for training",
    )

    def files(self) -> Iterator[Path]:
        """Yield the files whose bytes decide what the source holds."""
        path = Path(self.path) if self.path else None
        if path is not None:
            yield from sorted(path.iterdir()) if path.is_dir() else [path]


class PoolRecipe(Section):
    """Unlabelled queries and products for the teacher to label."""

    kind: Literal["files", "synthetic"] = "files"
    products: str = ""
    queries: str = ""
    seed: int = 0
    products_count: int = Field(400, ge=10)
    queries_count: int = Field(80, ge=4)


class SplitRecipe(Section):
    """Shares of queries held out, by hash."""

    validation: float = Field(0.3, ge=0.0, lt=1.0)
    test: float = Field(0.15, ge=0.0, lt=1.0)
    salt: str = "shelfrank"
    guard: Literal["equal", "words"] = Field(
        "equal", description="what shares a split: queries equal but for case and space, or in their words"
    )


class DataRecipe(Section):
    """Where judged pairs and the unlabelled pool come from."""

    sources: tuple[SourceRecipe, ...] = Field(min_length=1)
    pool: PoolRecipe | None = None
    split: SplitRecipe = SplitRecipe()

    def fingerprint(self) -> dict[str, str]:
        """Return the sha256 of every file the sources and the pool read."""
        files = {f"{source.name}/{file.name}": file for source in self.sources for file in source.files()}
        for source in self.sources:
            files |= {
                f"{source.name} queries": Path(source.queries_file),
                f"{source.name} products": Path(source.products_file),
            }
        if self.pool is not None and self.pool.kind == "files":
            files |= {"pool products": Path(self.pool.products), "pool queries": Path(self.pool.queries)}
        return {name: file_sha256(file) for name, file in files.items() if file.is_file()}


class AugmentRecipe(Section):
    """Unlabelled pairs: which queries, and how many products of which ranks of which retriever."""

    query_sources: tuple[str, ...] = ()
    max_queries: int = Field(1000, ge=1)
    train_queries: bool = True
    depth: int = Field(100, ge=1, description="ranks considered")
    ranked: int = Field(9, ge=1, description="products sampled across the ranks of BM25, denser at the top")
    biencoder: str = Field("", description="sentence encoder that retrieves too; empty leaves it out")
    dense: int = Field(0, ge=0, description="products sampled across the ranks of its cosines")
    min_cosine: float = Field(
        -1.0, ge=-1, le=1, description="a query whose nearest product is farther is left out"
    )
    random: int = Field(1, ge=0, description="products drawn at random")
    guard: Literal["equal", "words"] = Field(
        "equal",
        description="when a query counts as a held-out one: equal but for case and space, or in its words",
    )
    near_duplicate: float = Field(
        0.0, ge=0, le=1, description="word overlap of titles from which two candidates are one; 0 keeps both"
    )
    bf16: bool = Field(default=True, description="the sentence encoder computes in bfloat16")


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


class FreshRecipe(Section):
    """Shape of a BERT body with random weights and a WordPiece tokenizer trained on the data."""

    hidden: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    vocabulary: int = Field(2000, ge=100)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        return self


class TeacherRecipe(Section):
    """The sequence-classification model fine-tuned on soft targets."""

    model: str = Field("", description="hub id or folder; empty makes a fresh body")
    fresh: FreshRecipe = FreshRecipe()
    gguf_file: str = ""
    lora_rank: int = Field(0, ge=0, description="0 trains all weights")
    lora_targets: tuple[str, ...] = ()
    fields: tuple[FieldName, ...] = ("title", "brand", "color", "category", "bullets", "description")
    field_chars: dict[FieldName, int] = {}
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


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
