"""The section of the bundle stage, training.pack.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.sections.section import Section


class BundleRecipe(Section):
    """What the finished bundle holds and says."""

    precisions: tuple[Literal["int8", "fp32", "fp16"], ...] = Field(("int8",), min_length=1)
    licences: tuple[str, ...] = ()
    data: tuple[str, ...] = Field((), description="the card's lines on training data and attribution")
    limits: tuple[str, ...] = Field((), description="the card's lines on limits that come from the data")
    golden_tolerance: float = Field(0.02, gt=0, lt=1, description="largest |score| difference on another CPU")
