"""Makes the int8 graph and refuses it when it does not rank as the fp32 graph does.

Knows calibration rows, held-out lists and limits; does not know how a graph is rewritten.
Invariant: nothing is written unless every limit of the recipe is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.manifest import Calibration, TextContract
from bundle.rows import Row, assemble, padded_length
from bundle.score import class_probabilities
from bundle.text import PairEncoder
from bundle.verify import Session
from training.data.lists import JudgedList, by_list, encode_lists, encode_pairs, rankable, read_lists
from training.errors import StageError
from training.export.int8 import quantize
from training.measure import metrics
from training.models.batching import places_by_length
from training.models.runtime import OrtSession, score_rows
from training.sections.export import QuantizeRecipe
from training.stages import Context, Metrics
from training.student.student import load

Floats = NDArray[np.float32]
LEAST = ("spearman", "list_spearman", "pair_order")  # figures with a lower limit of their name in the recipe
MOST = ("rms", "ece_rise")  # and with an upper one


def calibration_rows(pairs: Path, encoder: PairEncoder, count: int, seed: int) -> list[Row]:
    """Token rows of judged training pairs, drawn over pairs so that long and short lists both count."""
    told = [(j.query, product) for j in read_lists(pairs, "train") for product in j.products]
    chosen = np.random.default_rng(seed).permutation(len(told))[:count]
    return encode_pairs(encoder, (told[i] for i in chosen))


def fidelity(exact: Floats, rounded: Floats, lists: Sequence[JudgedList]) -> dict[str, float]:
    """How well int8 logits stand in for fp32 logits, both [pairs] in list order.

    spearman: over all pairs; list_spearman: per list, mean over the lists that fp32 orders at all; rms: of
    the difference, over the standard deviation of the fp32 logits; pair_order: share of pairs within lists,
    further apart than 0.1 standard deviations, whose order is kept; ndcg_change: mean NDCG@10 of int8 less
    that of fp32 on the human gains, over all lists and for each data set; ndcg_change_error: its standard
    error over lists, for all and for each data set too.
    """
    spread = float(exact.std()) or 1.0
    kept = total = 0
    changes: dict[str, list[float]] = {}
    agreements = []
    for judged, before, after in zip(lists, by_list(exact, lists), by_list(rounded, lists), strict=True):
        apart = before[:, None] - before[None, :] > 0.1 * spread
        kept += int(((after[:, None] > after[None, :]) & apart).sum())
        total += int(apart.sum())
        change = metrics.ndcg(after, judged.gains, 10) - metrics.ndcg(before, judged.gains, 10)
        changes.setdefault(judged.dataset, []).append(change)
        if np.ptp(before) > 0:  # nan: int8 ties what fp32 orders
            agreements.append(np.nan_to_num(metrics.spearman(after, before)))
    pooled = np.concatenate(list(changes.values()))
    by_dataset = {f"ndcg_change {dataset}": float(np.mean(found)) for dataset, found in changes.items()}
    by_dataset |= {
        f"ndcg_change_error {dataset}": _error_of_mean(found) for dataset, found in changes.items()
    }
    return by_dataset | {
        "spearman": metrics.spearman(rounded, exact),
        "list_spearman": float(np.mean(agreements)) if agreements else 1.0,
        "rms": float(np.sqrt(np.mean((rounded - exact) ** 2))) / spread,
        "pair_order": kept / total if total else 1.0,
        "ndcg_change": float(pooled.mean()),
        "ndcg_change_error": _error_of_mean(pooled),
    }


def _error_of_mean(changes: ArrayLike) -> float:
    """Return the standard error of a mean [lists]; of one list alone, all of its change."""
    values = np.asarray(changes, np.float64)
    return float(values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else abs(values[0]))


def ece_rise(exact: Floats, rounded: Floats, lists: Sequence[JudgedList], calibration: Calibration) -> float:
    """Expected calibration error of the most probable class under int8 less that under fp32.

    Logits [pairs] in list order. Measured where labels are the served classes, if any list has such: the
    fit holds for them, and on other grades an error that is large anyway moves at random.
    """
    owner = np.repeat([None not in judged.labels for judged in lists], [len(judged) for judged in lists])
    counted = owner if owner.any() else ~owner
    truth = np.concatenate([np.array(judged.grades) for judged in lists])[counted]

    def error(logits: Floats) -> float:
        probabilities = class_probabilities(logits[counted], calibration)
        return metrics.expected_calibration_error(
            probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
        )

    return error(rounded) - error(exact)


def batch_drift(
    session: Session, rows: Sequence[Row], contract: TextContract, *, trials: int = 40, seed: int = 0
) -> float:
    """Largest |logit| change of a pair between being scored alone and in random batches; 0 is the promise."""
    draws = np.random.default_rng(seed)
    by_length = places_by_length([padded_length(len(row), contract.max_length) for row in rows])
    worst = 0.0
    for _ in range(trials):
        length = int(draws.choice(list(by_length)))
        members = [rows[place] for place in by_length[length]]
        batch = [members[i] for i in draws.integers(0, len(members), int(draws.integers(2, 41)))]
        together = session.run(assemble(batch, contract.template, length))
        place = int(draws.integers(0, len(batch)))
        alone = session.run(assemble([batch[place]], contract.template, length))
        worst = max(worst, abs(float(together[place]) - float(alone[0])))
    return worst


def broken_limits(found: dict[str, float], recipe: QuantizeRecipe) -> list[str]:
    """Every limit that the figures do not keep, in words, with the recipe's key; a figure that is nan breaks its limit.

    A change of NDCG is signed and its rise is never refused. A rise is noise as much as a fall of its size,
    but it harms nobody, and how far int8 strays from fp32 in either direction is what rms and the rank
    correlations bound, without the noise of labels. A fall within two standard errors is noise as well: 14 lists gave
    0.0035 to 0.0078 for students whose int8 graphs ranked as they should.
    """
    drops = {name: "max_ndcg_drop" for name in found if name == "ndcg_change"}
    drops |= {name: "max_dataset_ndcg_drop" for name in found if name.startswith("ndcg_change ")}
    limits = [  # figure, sign of what is too much, limit, key
        *((name, 1, getattr(recipe, f"min_{name}"), f"min_{name}") for name in LEAST),
        *((name, 1, -_allowed(found, name, getattr(recipe, key)), key) for name, key in drops.items()),
        *((name, -1, getattr(recipe, f"max_{name}"), f"max_{name}") for name in MOST),
        ("batch_drift", -1, 0.0, ""),
    ]
    return [
        f"{name} {found[name]:.4g} {'<' if sign > 0 else '>'} {limit:.4g}"
        + (f" (quantize.{key})" if key else "")
        for name, sign, limit, key in limits
        if not sign * found[name] >= sign * limit
    ]


def _allowed(found: dict[str, float], name: str, limit: float) -> float:
    """Return the fall of NDCG that is let through: the recipe's, or two standard errors if they are more."""
    return max(limit, 2 * found[name.replace("ndcg_change", "ndcg_change_error")])


def run(context: Context) -> Metrics:
    """Write model.int8.onnx and quantize.json; StageError names every limit that is not kept."""
    recipe = context.recipe.quantize
    student = load(context.inputs("distil"))
    pairs = context.inputs("data") / "pairs.parquet"
    exact_graph = (context.inputs("export") / "model.onnx").read_bytes()
    rows = calibration_rows(pairs, student.encoder, recipe.calibration_pairs, context.seed)
    graph = quantize(
        exact_graph, rows, student.contract, reduce_range=recipe.reduce_range, smooth=recipe.smooth
    )
    lists = rankable(read_lists(pairs, "validation"))
    if not lists:
        raise StageError("quantize: no validation list to measure fidelity on; hold out a larger share")
    held_out = encode_lists(student.encoder, lists)
    session = OrtSession(graph)
    exact = score_rows(OrtSession(exact_graph), held_out, student.contract)
    rounded = score_rows(session, held_out, student.contract)
    fitted = (context.inputs("calibrate") / "calibration.json").read_bytes()
    found = fidelity(exact, rounded, lists)
    found["ece_rise"] = ece_rise(exact, rounded, lists, Calibration.model_validate_json(fitted))
    found["batch_drift"] = batch_drift(session, held_out, student.contract, seed=context.seed)
    broken = broken_limits(found, recipe)
    context.log("quantize", broken=broken, **found)
    if broken:
        raise StageError(
            f"quantize: the int8 graph breaks its limits: {'; '.join(broken)}; the key in brackets sets the limit"
        )
    (context.out / "model.int8.onnx").write_bytes(graph)
    figures = found | {"bytes": len(graph), "calibration_pairs": len(rows), "lists": len(lists)}
    (context.out / "quantize.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    return figures
