"""Quality against latency: every student a study kept, in fp32 and in int8, on the same lists and the same core.

Knows student folders, graphs and held-out lists; trains nothing.
Invariant: all graphs are timed in the same rounds, one after another, so that a busy moment hits them all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.manifest import TextContract
from bundle.rows import Row
from training.data.lists import JudgedList, by_list, encode_lists, rankable, read_lists
from training.errors import StageError
from training.export.export import graph_module, load_student, to_onnx
from training.export.int8 import quantize
from training.export.quantize import calibration_rows
from training.measure.figures import figures
from training.models.runtime import OrtSession, score_rows
from training.provenance import commit
from training.recipe import load_recipe
from training.research.study import load_study
from training.stages import Run
from training.student.student import load

RESULT = "frontier.json"
LIST, LISTS, ROUNDS = 50, 5, 11  # products in a timed list, such lists, rounds over all graphs
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph to be measured: the student it is of, its precision and bytes, and its tokens of all lists."""

    name: str
    precision: str
    graph: bytes
    contract: TextContract
    rows: Sequence[Row]


def run_frontier(path: Path, overrides: Sequence[str], weights: Mapping[str, str]) -> None:
    """Measure the students kept by a study, and the base recipe's own, into `<study>/frontier.json`."""
    study = load_study(path)
    run = Run(load_recipe(Path(study.recipe), overrides), weights)
    pairs = run.folder("data") / "pairs.parquet"
    lists = rankable(read_lists(pairs, "validation"), run.recipe.evaluate.min_pairs)
    folders = {"default": run.folder("distil")} | {
        variant.name: Path(study.dir) / variant.name / f"seed-{study.seeds[0]}" for variant in study.variants
    }
    found: list[Candidate] = []
    for name, folder in folders.items():
        if not (folder / "model.safetensors").is_file():
            raise StageError(f"{folder} holds no student: run the study with keep_students = true")
        found += _graphs(name, folder, run, pairs, lists)
    told = {
        "commit": commit(),
        "list": LIST,
        "lists": LISTS,
        "rounds": ROUNDS,
        "students": list(_measured(found, lists)),
    }
    out = Path(study.dir) / RESULT
    part = out.with_suffix(".part")
    part.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    os.replace(part, out)


def _graphs(
    name: str, folder: Path, run: Run, pairs: Path, lists: Sequence[JudgedList]
) -> Iterable[Candidate]:
    student = load(folder)
    recipe = run.recipe
    exact = to_onnx(graph_module(load_student(folder), recipe.export.graph), recipe.export.opset)
    fp32 = exact.SerializeToString()
    rows = calibration_rows(pairs, student.encoder, recipe.quantize.calibration_pairs, recipe.run.seed)
    int8 = quantize(
        fp32, rows, student.contract, reduce_range=recipe.quantize.reduce_range, smooth=recipe.quantize.smooth
    )
    told = encode_lists(student.encoder, lists)
    for precision, graph in (("fp32", fp32), ("int8", int8)):
        yield Candidate(name, precision, graph, student.contract, told)


def _measured(candidates: Sequence[Candidate], lists: Sequence[JudgedList]) -> Iterable[dict[str, object]]:
    sessions = [OrtSession(each.graph) for each in candidates]
    spent = _milliseconds(candidates, sessions)
    for session, each, ms in zip(sessions, candidates, spent, strict=True):
        logits = by_list(score_rows(session, each.rows, each.contract), lists)
        quality = {}
        for dataset in dict.fromkeys(judged.dataset for judged in lists):
            chosen = [place for place, judged in enumerate(lists) if judged.dataset == dataset]
            told = figures([lists[i] for i in chosen], [logits[i] for i in chosen], RESAMPLES)["ndcg@10"]
            quality[dataset] = {"value": told.value, "low": told.low, "high": told.high}
        size = len(each.graph)
        told_by = {"student": each.name, "precision": each.precision, "bytes": size}
        yield told_by | {"ms": round(ms, 3), "ndcg@10": quality}


def _milliseconds(candidates: Sequence[Candidate], sessions: Sequence[OrtSession]) -> list[float]:
    """Return the median time of a list on one thread, for each candidate; the lists are the same for all."""
    draws = np.random.default_rng(0)
    lists = [draws.integers(0, len(candidates[0].rows), LIST) for _ in range(LISTS)]
    spent: list[list[float]] = [[] for _ in candidates]
    for _ in range(ROUNDS + 1):  # the first round warms up
        for each, session, times in zip(candidates, sessions, spent, strict=True):
            for chosen in lists:
                rows = [each.rows[i] for i in chosen]
                started = time.perf_counter()
                score_rows(session, rows, each.contract)
                times.append(time.perf_counter() - started)
    return [1000 * float(np.median(times[LISTS:])) for times in spent]
