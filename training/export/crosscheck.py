"""Compares the exported graph with Optimum's export of the same student, on the same rows.

Knows the folders of a run and both exporters; needs the environment that Optimum is in.
Invariant: the run is read and never written; graphs that are too far apart, or nan, are an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bundle.manifest import TextContract
from bundle.text import PairEncoder
from training.data.golden import golden_pairs
from training.data.lists import encode_pairs
from training.errors import StageError
from training.export.export import difference, load_student
from training.export.optimum_export import export_by_optimum
from training.models.runtime import OrtSession, score_rows
from training.recipe import load_recipe
from training.stages import Run


def run_crosscheck(
    path: Path, overrides: Sequence[str] = (), weights: Mapping[str, str] | None = None
) -> None:
    """Print the largest |logit| difference as JSON; StageError if it is over the recipe's export.parity.

    The rows are the golden pairs, as the student's text contract reads them, and random ids at several shapes.
    """
    recipe = load_recipe(path, overrides)
    run = Run(recipe, weights or {})
    folder, ours = run.folder("distil"), run.folder("export") / "model.onnx"
    model = load_student(folder)
    one = OrtSession(ours.read_bytes())
    other = OrtSession(export_by_optimum(model, recipe.export.opset).SerializeToString())
    contract = TextContract.model_validate_json((folder / "text_contract.json").read_bytes())
    encoder = PairEncoder((folder / "tokenizer.json").read_bytes(), contract)
    rows = encode_pairs(encoder, golden_pairs())
    golden = float(np.abs(score_rows(one, rows, contract) - score_rows(other, rows, contract)).max())
    at_random = difference(one, other, model.config.vocab_size, recipe.run.seed)
    figures = {"golden_rows": golden, "random_ids": at_random, "limit": recipe.export.parity}
    print(json.dumps(figures))
    if not (golden <= recipe.export.parity and at_random <= recipe.export.parity):
        raise StageError(
            f"{ours} is {np.max([golden, at_random]):.2e} from Optimum's graph, allowed is {recipe.export.parity:.0e}"
        )
