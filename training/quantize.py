"""Makes the int8 graph and refuses it when it does not rank as the fp32 graph does.

Knows calibration rows, held-out lists and limits; the graph surgery is in training.int8.
Invariant: nothing is written unless every limit of the recipe is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import TextContract
from bundle.text import PairEncoder, Row, assemble, padded_length
from bundle.verify import Session
from training import metrics
from training.int8 import quantize
from training.lists import JudgedList, by_list, encode_lists, rankable, read_lists
from training.runtime import OrtSession, score_rows
from training.stages import Context, Metrics, StageError
from training.student import load
from training.student_sections import QuantizeRecipe

Floats = NDArray[np.float32]


def calibration_rows(pairs: Path, encoder: PairEncoder, count: int, seed: int) -> list[Row]:
    """Token rows of judged training pairs, drawn over pairs so that long and short lists both count."""
    told = [(j.query, product) for j in read_lists(pairs, "train") for product in j.products]
    chosen = np.random.default_rng(seed).permutation(len(told))[:count]
    return [encoder.encode(told[i][0], [told[i][1]])[0] for i in chosen]


def fidelity(exact: Floats, rounded: Floats, lists: Sequence[JudgedList]) -> dict[str, float]:
    """How well int8 logits stand in for fp32 logits, both [pairs] in list order.

    spearman: over all pairs; rms: of the difference, over the standard deviation of the fp32 logits;
    pair_order: share of pairs within lists, further apart than 0.1 standard deviations, whose order is
    kept; ndcg_change: mean NDCG@10 of int8 less that of fp32 on the human gains.
    """
    spread = float(exact.std()) or 1.0
    kept = total = 0
    changes = []
    for judged, before, after in zip(lists, by_list(exact, lists), by_list(rounded, lists), strict=True):
        apart = before[:, None] - before[None, :] > 0.1 * spread
        kept += int(((after[:, None] > after[None, :]) & apart).sum())
        total += int(apart.sum())
        changes.append(metrics.ndcg(after, judged.gains, 10) - metrics.ndcg(before, judged.gains, 10))
    return {
        "spearman": metrics.spearman(rounded, exact),
        "rms": float(np.sqrt(np.mean((rounded - exact) ** 2))) / spread,
        "pair_order": kept / total if total else 1.0,
        "ndcg_change": float(np.mean(changes)),
    }


def batch_drift(
    session: Session, rows: Sequence[Row], contract: TextContract, *, trials: int = 40, seed: int = 0
) -> float:
    """Largest |logit| change of a pair between being scored alone and in random batches; 0 is the promise."""
    draws = np.random.default_rng(seed)
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(padded_length(len(row), contract.max_length), []).append(row)
    worst = 0.0
    for _ in range(trials):
        length = int(draws.choice(list(by_length)))
        members = by_length[length]
        batch = [members[i] for i in draws.integers(0, len(members), int(draws.integers(2, 41)))]
        together = session.run(assemble(batch, contract.template, length))
        place = int(draws.integers(0, len(batch)))
        alone = session.run(assemble([batch[place]], contract.template, length))
        worst = max(worst, abs(float(together[place]) - float(alone[0])))
    return worst


def broken_limits(found: dict[str, float], recipe: QuantizeRecipe) -> list[str]:
    """Every limit of the recipe that the figures do not keep, in words; a figure that is nan breaks its limit."""
    kept = {
        f"spearman {found['spearman']:.4f} < {recipe.min_spearman}": found["spearman"] >= recipe.min_spearman,
        f"pair_order {found['pair_order']:.4f} < {recipe.min_pair_order}": found["pair_order"]
        >= recipe.min_pair_order,
        f"rms {found['rms']:.4f} > {recipe.max_rms}": found["rms"] <= recipe.max_rms,
        f"ndcg_change {found['ndcg_change']:.4f} < -{recipe.max_ndcg_drop}": found["ndcg_change"]
        >= -recipe.max_ndcg_drop,
        f"batch_drift {found['batch_drift']:.1e} > 0": found["batch_drift"] == 0,
    }
    return [words for words, holds in kept.items() if not holds]


def run(context: Context) -> Metrics:
    """Write model.int8.onnx and quantize.json; StageError names every limit that is not kept."""
    recipe = context.recipe.quantize
    student = load(context.inputs("distil"))
    pairs = context.inputs("data") / "pairs.parquet"
    exact_graph = (context.inputs("export") / "model.onnx").read_bytes()
    rows = calibration_rows(pairs, student.encoder, recipe.calibration_pairs, context.seed)
    graph = quantize(exact_graph, rows, student.contract, reduce_range=recipe.reduce_range)
    lists = rankable(read_lists(pairs, "validation"))
    if not lists:
        raise StageError("quantize: no validation list to measure fidelity on; hold out a larger share")
    held_out = encode_lists(student.encoder, lists)
    exact, rounded = OrtSession(exact_graph), OrtSession(graph)
    found = fidelity(
        score_rows(exact, held_out, student.contract), score_rows(rounded, held_out, student.contract), lists
    )
    found["batch_drift"] = batch_drift(rounded, held_out, student.contract, seed=context.seed)
    broken = broken_limits(found, recipe)
    context.log("quantize", broken=broken, **found)
    if broken:
        raise StageError(f"quantize: the int8 graph breaks its limits: {'; '.join(broken)}")
    (context.out / "model.int8.onnx").write_bytes(graph)
    figures = found | {"bytes": len(graph), "calibration_pairs": len(rows), "lists": len(lists)}
    (context.out / "quantize.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return figures
