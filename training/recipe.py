"""The typed recipe: every number of a run, read from one TOML file.

Knows names, ranges and defaults; does not know how a stage uses them.
Invariant: an unknown key, a wrong type or a value out of range stops the run and names itself.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from training.errors import RecipeError
from training.sections.data import AugmentRecipe, DataRecipe
from training.sections.evaluate import EvaluateRecipe
from training.sections.export import ExportRecipe, QuantizeRecipe
from training.sections.models import FRESH_POSITIONS
from training.sections.pack import BundleRecipe
from training.sections.section import Section
from training.sections.student import CalibrateRecipe, DistilRecipe, TextRecipe
from training.sections.teacher import BlendRecipe, JudgeRecipe, LabelRecipe, PanelRecipe, TeacherRecipe

T = TypeVar("T", bound=Section)


TAUGHT = ("augment", "judge", "label", "blend", "panel")  # sections that mean nothing without [teacher]


class RunRecipe(Section):
    """Name, seed and output folder of a run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    version: str = "0.1.0"
    seed: int = Field(0, ge=0)
    dir: str
    threads: int = Field(
        0, ge=0, description="torch threads; 0 takes the CPUs that are free at the start of a stage"
    )
    shares: str = Field(
        "", description="folder of another run, whose stages are taken where they are just those wanted"
    )


class Recipe(Section):
    """A whole run, stage by stage."""

    run: RunRecipe
    text: TextRecipe
    data: DataRecipe
    augment: AugmentRecipe | None = None
    judge: JudgeRecipe | None = None
    teacher: TeacherRecipe | None = None
    label: LabelRecipe | None = None
    blend: BlendRecipe | None = None
    panel: PanelRecipe | None = None
    distil: DistilRecipe
    calibrate: CalibrateRecipe = CalibrateRecipe()
    export: ExportRecipe = ExportRecipe()
    quantize: QuantizeRecipe = QuantizeRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()
    bundle: BundleRecipe = BundleRecipe()

    def sha256(self) -> str:
        """Return the hash of the whole recipe as parsed."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @model_validator(mode="before")
    @classmethod
    def _around_a_teacher(cls, raw: Any) -> Any:
        """Give the stages before and after a teacher their defaults where there is one, and only there."""
        return {"augment": {}, "label": {}} | raw if "teacher" in raw else raw

    @model_validator(mode="after")
    def _teaches(self) -> Self:
        if self.teacher is not None:
            return self
        if self.distil.learn_from == "teacher":
            raise ValueError(
                "no [teacher] section: add one, or learn from the judgments with distil.learn_from = 'labels'"
            )
        if idle := [name for name in TAUGHT if getattr(self, name) is not None]:
            raise ValueError(f"[{idle[0]}] is for a teacher, and there is no [teacher] section: take it away")
        return self

    @model_validator(mode="after")
    def _members(self) -> Self:
        if self.blend is not None and self.blend.judge and self.judge is None:
            raise ValueError("blend.judge has a weight, but there is no [judge] section")
        if self.panel is not None and self.blend is None:
            raise ValueError("[panel] scores the members of the blend, but there is no [blend] section")
        if not self.distil.model and self.text.max_length > FRESH_POSITIONS:
            raise ValueError(f"text.max_length is over {FRESH_POSITIONS}, the positions of a fresh student")
        if "fp16" in self.bundle.precisions and not self.export.fp16:
            raise ValueError("bundle.precisions names fp16: set export.fp16 = true, which makes its graph")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe and apply `section.key=value` overrides; RecipeError names what is wrong.

    A recipe may begin with `extends = "other.toml"`, a path beside its own: it then says only what differs, and
    `false` in the place of a section or table takes away the other's.
    """
    raw = _extended(path)
    for override in overrides:
        _set(raw, override)
    raw = {name: section for name, section in raw.items() if section is not False}
    return _validated(path, raw, Recipe)


def load_table(path: Path, name: str, model: type[T]) -> T:
    """Read the table `[name]` of a TOML file; RecipeError names the file and what is wrong in it."""
    raw = _read(path)
    if name not in raw:
        raise RecipeError(f"{path}: no [{name}] table")
    return _validated(path, raw[name], model)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or a path with a NUL in it
        raise RecipeError(f"{path!s}: cannot be read: not TOML ({error})") from error


def _extended(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    raw = _read(path)
    if path.resolve() in below:
        raise RecipeError(f"{path}: extends itself")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise RecipeError(f"{path}: extends: expected the path of a recipe")
    return _merged(_extended(path.parent / base, (*below, path.resolve())), raw)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Lay one table over another; tables are merged or, by `false`, taken away, anything else is replaced.

    >>> _merged({"a": {"b": 1, "c": 2}, "d": [1], "e": {}}, {"a": {"b": 3}, "d": [2], "e": False})
    {'a': {'b': 3, 'c': 2}, 'd': [2]}
    """
    both = {
        key: _merged(base[key], value) for key, value in changes.items() if _is_table(value, base.get(key))
    }
    gone = {key for key, value in changes.items() if value is False and _is_table(base.get(key))}
    return {key: value for key, value in (base | changes | both).items() if key not in gone}


def _is_table(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _validated(path: Path, raw: Any, model: type[T]) -> T:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {where or 'recipe'}: {first['msg']}") from error


def _set(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"override {override!r}: expected section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = value
    node = raw
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise RecipeError(f"override {override!r}: {part} is not a section")
    if parsed is False and _is_table(node.get(parts[-1])):
        del node[parts[-1]]
    else:
        node[parts[-1]] = parsed
