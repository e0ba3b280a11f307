"""Run stages in order, each into a folder of its own, keyed by the content it depends on.

Knows recipes, folders and hashes; does not know what a stage computes.
Invariant: a folder `RUN/STAGE` exists only if the stage finished, and `stage.json` in it says from what.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from training.cpus import threads_for
from training.errors import StageError
from training.folders import digests, file_sha256, key_of, part_of, read_json, swap, whole
from training.provenance import commit, libraries
from training.recipe import Recipe

Metrics = Mapping[str, float | int | str]

# stage -> (module with run(context), stages it reads)
STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "data": ("training.data.sources", ()),
    "augment": ("training.data.augment", ("data",)),
    "judge": ("training.teacher.judge", ("data", "augment")),
    "teacher": ("training.teacher.teacher", ("data", "judge")),
    "label": ("training.teacher.label", ("data", "augment", "teacher")),
    "blend": ("training.teacher.blend", ("data", "judge", "label")),
    "panel": ("training.teacher.panel", ("data", "judge", "teacher", "blend")),
    "distil": ("training.student.distil", ("data", "label", "blend")),
    "calibrate": ("training.student.calibrate", ("data", "distil")),
    "export": ("training.export.export", ("distil",)),
    "quantize": ("training.export.quantize", ("data", "distil", "calibrate", "export")),
    "evaluate": (
        "training.evaluate.evaluate",
        ("data", "teacher", "panel", "distil", "calibrate", "export", "quantize"),
    ),
    "bundle": ("training.pack.pack", ("data", "distil", "calibrate", "export", "quantize", "evaluate")),
}

# trained data-parallel under torchrun: every process works, the first one writes
DATA_PARALLEL = ("teacher", "distil")


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may touch: its recipe, its output folder, its scratch and earlier stages' folders."""

    recipe: Recipe
    out: Path
    scratch: Path
    seed: int
    run: Run

    def inputs(self, stage: str) -> Path:
        """Return the finished output folder of an earlier stage."""
        return self.run.folder(stage)

    def weights(self, model: str) -> str:
        """Return the local folder given for a model on the command line, or the model as the recipe names it."""
        return self.run.weights.get(model, model)

    def log(self, event: str, **values: Any) -> None:
        """Append one line to the run's metrics.jsonl."""
        self.run.log(event, **values)


@dataclass(frozen=True, slots=True)
class Run:
    """One recipe, the folder its stages are written to, and local folders of the models it names."""

    recipe: Recipe
    weights: Mapping[str, str] = field(default_factory=dict)
    ray: int = 0  # actors that score shards on a Ray cluster; 0 scores them in this process
    follows: bool = False  # another process of a data-parallel training writes the results

    @property
    def root(self) -> Path:
        """Return the run's folder."""
        return Path(self.recipe.run.dir)

    def folder(self, stage: str) -> Path:
        """Return a finished stage's folder, this run's or the one it shares; StageError if it is not there, or broken."""
        if (found := self._found(stage)) is None:
            raise StageError(
                f"stage {stage} has not run: run `python -m training {stage}` with this recipe first"
            )
        return whole(found)

    def _found(self, stage: str) -> Path | None:
        return self.root / stage if (self.root / stage / "stage.json").is_file() else self._shared(stage)

    def _shared(self, stage: str) -> Path | None:
        """Return the stage's folder in the run that this one shares, if it was made from just this recipe."""
        path = Path(self.recipe.run.shares) / stage
        return path if self.recipe.run.shares and key_of(path) == self.key(stage) else None

    def wanted(self) -> list[str]:
        """Return the stages of this recipe in order, without the optional ones that it has no section for."""
        return [stage for stage in STAGES if getattr(self.recipe, stage) is not None]

    def reads(self, stage: str) -> tuple[str, ...]:
        """Return the stages that a stage reads under this recipe."""
        return tuple(other for other in STAGES[stage][1] if other in self.wanted())

    def key(self, stage: str) -> str:
        """Return the hash of everything a stage's output depends on: its recipe, its inputs, its sources.

        StageError when the recipe has no section for an optional stage.
        """
        if getattr(self.recipe, stage) is None:
            raise StageError(f"the recipe has no [{stage}] section: add one, or leave the stage out")
        keys: dict[str, str] = {}
        for each in self.wanted():  # in order, so that what a stage reads has its key already
            told = {
                "stage": each,
                "seed": self.recipe.run.seed,
                "section": said(getattr(self.recipe, each)),
                "sources": self.recipe.data.fingerprint() if each == "data" else {},
                "reads": {other: keys[other] for other in self.reads(each)},
            }
            if each == "distil":
                told["text"] = said(self.recipe.text)
                told["averaged"] = [key_of(Path(folder)) for folder in self.recipe.distil.average_with]
            if each == "evaluate" and (shipped := self.recipe.evaluate.shipped_manifest()):
                told["shipped"] = file_sha256(shipped)
            if each == "bundle":
                told["run"] = [self.recipe.run.name, self.recipe.run.version]
            keys[each] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            if each == stage:
                break
        return keys[stage]

    def is_current(self, stage: str) -> bool:
        """Say whether a stage's folder was made from just this recipe and these inputs."""
        return key_of(self.root / stage) == self.key(stage) or self._shared(stage) is not None

    def execute(self, stage: str) -> None:
        """Run a stage unless it is current; its output folder appears whole or not at all."""
        key = self.key(stage)
        if self.is_current(stage):
            print(f"{stage}: up to date", file=sys.stderr)
            if (found := self._found(stage)) is not None:
                _warn(read_json(found / "stage.json").get("metrics"))
            return
        for other in self.reads(stage):
            if not self.is_current(other):
                raise StageError(
                    f"stage {other} is missing or out of date: run it before {stage}, or use `all`"
                )
            self.folder(other)  # whole, or the stage does not begin
        scratch = self.root / ".scratch" / f"{stage}-{key[:12]}"
        run = replace(self, follows=stage in DATA_PARALLEL and _is_follower())
        out = part_of(self.root / stage)
        context = Context(self.recipe, out, scratch, self.recipe.run.seed, run)
        with carried_out(stage, context, self.root / stage) as (metrics, seconds):
            told = {
                "stage": stage,
                "key": key,
                "seconds": seconds,
                "metrics": metrics,
                "finished": _now(),
                "files": digests(out),
            }
            (out / "stage.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
        if run.follows:
            return
        self.log("stage", stage=stage, seconds=seconds, **metrics)
        self.write_manifest()
        print(f"{stage}: done in {seconds:.1f} s {json.dumps(metrics)}", file=sys.stderr)
        _warn(metrics)

    def log(self, event: str, **values: Any) -> None:
        """Append one event to RUN/metrics.jsonl."""
        if self.follows:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "time": _now(), **values}, sort_keys=True) + "\n")

    def write_manifest(self) -> None:
        """Write RUN/run.json: commit, recipe hash, seed, library versions, and each finished stage."""
        stages = {}
        for stage in self.wanted():
            if (found := self._found(stage)) is not None:
                told = read_json(found / "stage.json")
                stages[stage] = {name: value for name, value in told.items() if name != "files"}
        manifest = {
            "recipe": self.recipe.run.name,
            "recipe_sha256": self.recipe.sha256(),
            "seed": self.recipe.run.seed,
            "commit": commit(),
            "libraries": libraries(),
            "stages": stages,
        }
        path = self.root / "run.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        os.replace(part, path)


@contextmanager
def carried_out(stage: str, context: Context, target: Path) -> Iterator[tuple[dict[str, Any], float]]:
    """Run a stage in `context.out`; yield its metrics and seconds, then put that folder in the place of `target`.

    The block may add to the folder. If the stage or the block fails, `target` stays as it was, and what the stage
    keeps in its scratch folder is there when it runs again.
    """
    shutil.rmtree(context.out, ignore_errors=True)
    for made in (context.scratch, context.out):
        made.mkdir(parents=True, exist_ok=True)
    try:
        started = time.monotonic()
        runner: Callable[[Context], Metrics] = import_module(STAGES[stage][0]).run
        if (torch := sys.modules.get("torch")) is not None:
            threads, said_of_them = threads_for(context.recipe.run.threads)
            torch.set_num_threads(threads)
            if said_of_them:
                print(f"{stage}: {said_of_them}", file=sys.stderr)
        metrics = dict(runner(context))
        yield metrics, round(time.monotonic() - started, 3)
        if context.run.follows:
            return
        swap(context.out, target)
    finally:
        shutil.rmtree(context.out, ignore_errors=True)
    shutil.rmtree(context.scratch, ignore_errors=True)


def said(section: BaseModel) -> dict[str, Any]:
    """Return what a section says beyond the defaults: an option added later leaves finished stages current."""
    return section.model_dump(mode="json", exclude_defaults=True)


def _is_follower() -> bool:
    """Say whether torchrun started this process, and another one as the first."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def _warn(metrics: Any) -> None:
    """Print a stage's warning as the last line, whether it ran just now or is up to date."""
    if isinstance(metrics, Mapping) and (warning := metrics.get("warning")):
        print(f"\nWARNING: {warning}", file=sys.stderr)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
