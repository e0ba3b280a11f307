"""What every section of a recipe is: frozen, and strict about its keys.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of the recipe that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


FieldName = Literal["title", "brand", "color", "category", "bullets", "description"]
