"""The sections of the stages in training.data.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from training.folders import file_sha256
from training.sections.section import FieldName, Section

ColumnName = (
    Literal[
        "query_id",
        "query",
        "product_id",
        "label",
        "grade",
        "locale",
        "rank",
        "split",
        "impressions",
        "clicks",
    ]
    | FieldName
)


class GradeRecipe(Section):
    """What a grade is worth: the soft target that a student learns, and the gain that a ranking is measured by."""

    target: float = Field(ge=0, le=1)
    gain: float = Field(ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _of_one_number(cls, told: Any) -> Any:
        """Read one number as both."""
        return {"target": told, "gain": told} if isinstance(told, int | float | str) else told


class SourceRecipe(Section):
    """One source of judged pairs."""

    kind: Literal["judged", "esci_parquet", "table", "synthetic"]
    name: str
    path: str = ""
    queries_file: str = Field("", description="file of the queries, where `path` has their ids alone")
    products_file: str = Field("", description="file of the products, where `path` has their ids alone")
    locales: tuple[str, ...] = ()
    large_version: bool = False
    columns: dict[ColumnName, str] = Field({})
    label_map: dict[str, Literal["E", "S", "C", "I"]] = Field({})
    grades: dict[str, GradeRecipe] = Field(
        {},
        description="what each grade or label of yours is worth: a number in [0, 1], or a target and a gain",
    )
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
