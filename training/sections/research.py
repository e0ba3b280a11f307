"""The files of training.research: a study, and a report over a run and its studies.

Knows names, units, ranges and defaults; does not know how they are used.
Invariant: light to import, so that reading one loads no model library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.sections.section import Section


class VariantRecipe(Section):
    """One choice of a study: a name and what it changes in the base recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    set: tuple[str, ...] = Field((), description="section.key=value, of the sections that may vary")


class StudyRecipe(Section):
    """Students or teachers trained from one run's labels, every variant with every seed."""

    recipe: str = Field(description="the base recipe; its run must have finished what the stage reads")
    stage: Literal["distil", "teacher"] = Field(
        "distil", description="what is trained: distil varies [distil] and [text], teacher varies [teacher]"
    )
    dir: str
    seeds: tuple[int, ...] = Field(min_length=1)
    set: tuple[str, ...] = Field((), description="what every variant changes, before its own changes")
    variants: tuple[VariantRecipe, ...] = Field(min_length=1)
    keep_students: bool = False


class ShownRecipe(Section):
    """One study in the report."""

    study: str
    title: str
    text: str = ""
    kind: Literal["table", "scaling", "frontier"] = "table"
    reference: str = Field("", description="variant that the others are compared with; empty takes the first")
    lines: dict[str, str] = Field({}, description="scaling: name of a line -> prefix of its variants' names")


class ReportRecipe(Section):
    """What the report shows and where it goes."""

    title: str
    text: str = Field("", description="what stands below the title: how and where the figures were made")
    recipe: str
    html: str
    markdown: str
    figures: str = Field("", description="folder of the plots that the Markdown shows; empty shows none")
    split: Literal["validation", "test"] = "validation"
    resamples: int = Field(2000, ge=100)
    shown: tuple[ShownRecipe, ...] = ()
