"""The shape of a body with random weights, for teachers and students that begin without a pretrained one.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from training.sections.section import Section

FRESH_POSITIONS = 512  # tokens that a fresh body can tell the places of


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
