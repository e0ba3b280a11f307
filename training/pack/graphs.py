"""The graphs of a model that is imported or tuned: fp32 proved against torch, the others against fp32.

Knows rows of token ids and logits; does not know where texts or weights come from.
Invariant: a graph is returned only if it keeps its limits, and what was measured is returned with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.manifest import Precision, TextContract
from bundle.rows import Row, assemble
from training.data.lists import JudgedList, by_list
from training.errors import StageError
from training.export.classes import ExpectedGain
from training.export.export import PlainGraph, graph_module, to_half, to_onnx
from training.export.flat import FlatBert
from training.export.int8 import quantize
from training.export.layout import encoder_layout
from training.export.quantize import batch_drift
from training.measure import metrics
from training.models.hub import one_line
from training.models.runtime import OrtSession, score_rows
from training.pack.trial import Trial

PARITY = 1e-4  # largest |logit| difference to torch, for logits of up to 1; larger ones round in proportion
HALF_PARITY = 0.02
OPSET = 20
LEAST_SPEARMAN = 0.98  # int8 and fp32 in a list, mean over lists
LEAST_OVERLAP = 0.9  # of the first ten, mean over lists
NDCG_DROP = 0.005  # that int8 may cost; no less than twice the standard error of what was measured
STOCK_DRIFT = (
    1e-5  # of a logit by its company, in a stock graph: the runtime's products round by the size of a batch
)
MOST_BYTES = (1 << 31) - (1 << 24)  # of an ONNX file, a message of Protocol Buffers, beside its weights

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Graphs:
    """Graphs by precision, the first is the default, with the logits of the trial's rows and what was measured."""

    kind: str
    files: dict[Precision, bytes] = field(default_factory=dict)
    logits: dict[Precision, Floats] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def served(self) -> Precision:
        """The default graph."""
        return next(iter(self.files))

    @property
    def is_native(self) -> bool:
        """Whether our own engine computes the default graph."""
        return encoder_layout(self.files[self.served]) is not None


def make_graphs(
    model: nn.Module,
    relevance: ExpectedGain | None,
    contract: TextContract,
    trial: Trial,
    wanted: Sequence[Precision],
) -> Graphs:
    """Return the wanted graphs; int8 that breaks its limits is replaced by fp32, with a note that says why."""
    weight = sum(parameter.nbytes for parameter in model.parameters())
    if weight > MOST_BYTES:
        raise StageError(
            f"the model's {weight / 1e9:.1f} GB of weights do not fit an ONNX file, which holds 2 GB"
        )
    module = graph_module(model, "flat", fused="fp16" not in wanted, relevance=relevance)
    made = Graphs("flat" if isinstance(module, FlatBert) else "stock")
    exact = _exported(module, contract)
    session = OrtSession(exact)
    made.figures["fp32 parity"] = _parity(
        PlainGraph(model, relevance).eval(), session, contract, trial.calibration
    )
    exact_logits = score_rows(session, trial.rows, contract)
    for precision in wanted:
        if precision == "int8":
            _add_int8(made, exact, exact_logits, contract, trial)
        elif precision == "fp16":
            _add_half(made, exact, contract, trial)
        else:
            made.files["fp32"], made.logits["fp32"] = exact, exact_logits
    if not made.files:
        made.files["fp32"], made.logits["fp32"] = exact, exact_logits
    return made


def _exported(module: nn.Module, contract: TextContract) -> bytes:
    try:
        return bytes(to_onnx(module, OPSET, contract.max_length).SerializeToString())
    except Exception as error:  # the exporter raises anything
        raise StageError(f"torch cannot export this model ({one_line(error)})") from error


@torch.inference_mode()
def _parity(module: nn.Module, session: OrtSession, contract: TextContract, rows: Sequence[Row]) -> float:
    """Return the largest |logit| difference between torch and the graph, over short, long and padded rows."""
    by_length = sorted(rows, key=len)
    batches = [[by_length[0]], [by_length[-1]], by_length[:: max(1, len(rows) // 8)][:8]]
    worst = largest = 0.0
    for batch in batches:
        feeds = assemble(batch, contract.template)
        expected = module(**{name: torch.from_numpy(values) for name, values in feeds.items()}).numpy()
        worst = np.maximum(worst, np.abs(session.run(feeds) - expected).max())  # nan stays
        largest = max(largest, float(np.abs(expected).max()))
    if not worst <= PARITY * max(1.0, largest):
        raise StageError(f"the ONNX graph is {worst:.2e} from torch, allowed is {PARITY:.0e}")
    return float(worst)


def _add_int8(made: Graphs, exact: bytes, before: Floats, contract: TextContract, trial: Trial) -> None:
    try:
        graph = quantize(exact, trial.calibration, contract)
    except ValueError as error:
        made.notes.append(f"int8 cannot be made ({error}): the bundle serves fp32")
        return
    session = OrtSession(graph)
    after = score_rows(session, trial.rows, contract)
    found = fidelity(before, after, trial.lists, graded=trial.graded)
    found["batch drift"] = batch_drift(session, trial.rows, contract, trials=20)
    made.figures |= {f"int8 {name}": value for name, value in found.items()}
    if broken := broken_limits(found, 0.0 if made.kind == "flat" else STOCK_DRIFT):
        made.notes.append(f"int8 does not rank as fp32 does ({'; '.join(broken)}): the bundle serves fp32")
    else:
        made.files["int8"], made.logits["int8"] = graph, after


def _add_half(made: Graphs, exact: bytes, contract: TextContract, trial: Trial) -> None:
    try:
        graph = to_half(exact)
    except Exception as error:  # noqa: BLE001 - the converter raises anything; without fp16 there is still a bundle
        made.notes.append(f"fp16 cannot be made ({one_line(error)}): the bundle has none")
        return
    before, after = (score_rows(OrtSession(each), trial.calibration, contract) for each in (exact, graph))
    far = float(np.abs(after - before).max() / max(1.0, np.abs(before).max()))
    made.figures["fp16 parity"] = far
    if not far <= HALF_PARITY:
        made.notes.append(f"fp16 is {far:.2e} from fp32, allowed is {HALF_PARITY}: the bundle has none")
    else:
        made.files["fp16"], made.logits["fp16"] = graph, score_rows(OrtSession(graph), trial.rows, contract)


def fidelity(before: Floats, after: Floats, lists: Sequence[JudgedList], *, graded: bool) -> dict[str, float]:
    """How well logits `after` stand in for `before`, both [pairs] in list order.

    list spearman and top 10 overlap are means over lists, of half of a list that has fewer than 20 products; with
    graded lists also the change of NDCG@10 and its standard error.
    """
    pairs = list(zip(by_list(before, lists), by_list(after, lists), strict=True))
    agreed = [np.nan_to_num(metrics.spearman(late, early)) for early, late in pairs if np.ptp(early) > 0]
    found = {
        "list spearman": float(np.mean(agreed)) if agreed else 1.0,
        "top 10 overlap": float(np.mean([overlap(early, late) for early, late in pairs])),
    }
    if graded:
        changes = [
            metrics.ndcg(late, judged.gains, 10) - metrics.ndcg(early, judged.gains, 10)
            for (early, late), judged in zip(pairs, lists, strict=True)
        ]
        found |= {
            "ndcg@10 change": float(np.mean(changes)),
            "ndcg@10 change error": float(np.std(changes) / np.sqrt(len(changes))),
        }
    return found


def overlap(before: Floats, after: Floats) -> float:
    """Return which share of the first ten by one list of logits is among those by the other; of short lists, half.

    >>> overlap(np.array([4.0, 3, 2, 1], np.float32), np.array([4.0, 1, 3, 2], np.float32))
    0.5
    """
    count = min(10, max(1, len(before) // 2))
    first, second = (set(np.argsort(-values, kind="stable")[:count].tolist()) for values in (before, after))
    return len(first & second) / count


def broken_limits(found: Mapping[str, float], drift: float = 0.0) -> list[str]:
    """Return every limit that the figures do not keep, in words; a figure that is nan breaks its limit.

    `drift` is how far a logit may move by the batch it is in.
    """
    least = {"list spearman": LEAST_SPEARMAN, "top 10 overlap": LEAST_OVERLAP}
    if "ndcg@10 change" in found:
        least["ndcg@10 change"] = -max(NDCG_DROP, 2 * found["ndcg@10 change error"])
    below = [
        f"{name} {found[name]:.4f} < {limit:.4g}" for name, limit in least.items() if not found[name] >= limit
    ]
    moved = found["batch drift"]
    return below + ([] if moved <= drift else [f"batch drift {moved:.2g} > {drift:g}"])
