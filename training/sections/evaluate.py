"""The section of the stage in training.evaluate.

Knows names, units, ranges and defaults; does not know how a stage uses them.
Invariant: light to import, so that reading a recipe loads no model library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bundle.store import SHIPPED
from training.sections.section import Section


class EvaluateRecipe(Section):
    """Held-out lists, the baselines beside the student, and the bootstrap."""

    splits: tuple[Literal["validation", "test"], ...] = Field(("validation", "test"), min_length=1)
    min_pairs: int = Field(5, ge=2, description="judged products a list needs")
    resamples: int = Field(2000, ge=100, description="bootstrap draws of lists")
    biencoder: str = Field("", description="sentence encoder for the zero-shot baseline; empty leaves it out")
    shipped: str = Field(
        "models/default",
        description="bundle to stand beside the student, where it is there; empty leaves it out",
    )

    def shipped_manifest(self) -> Path | None:
        """Return the manifest of that bundle, if it is there."""
        places = (
            Path(self.shipped),
            SHIPPED.parent / self.shipped,
        )  # the latter from anywhere but a clone's folder
        manifests = (place / "manifest.json" for place in places if self.shipped)
        return next(filter(Path.is_file, manifests), None)
