"""What a model's outputs are worth: gains of its classes, and how its logit becomes a score in [0, 1].

Knows names of classes, activations and judgements; does not know weights or texts.
Invariant: whatever is decided ranks as the model itself does, and `note` says it on the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Calibration, Label
from training.data.formats import folded, shown
from training.data.grades import LABEL_NAMES, TARGETS, number
from training.data.lists import LABELS, JudgedList
from training.errors import StageError
from training.export.classes import ExpectedGain
from training.importing.folder import Source
from training.measure import calibration

RISING = (
    "",
    "Identity",
    "Sigmoid",
    "Tanh",
)  # activations of one logit that keep an order; "" is the default, Sigmoid
OF_CLASSES = ("", "Identity", "Softmax")
WORTHLESS = ("irrelevant", "not relevant", "notrelevant", "nonrelevant", "negative", "no", "false", "bad")
WORTHY = ("relevant", "positive", "yes", "true", "good", "perfect", "highly relevant")


@dataclass(frozen=True, slots=True)
class Scale:
    """How a logit becomes classes and a score, and a sentence on where that comes from."""

    labels: tuple[Label, ...]
    calibration: Calibration
    note: str


def relevance_of(source: Source, classes: int, told: str) -> tuple[ExpectedGain | None, str]:
    """Return what makes one logit of a model's classes, None if it has one, and a sentence for the card."""
    if classes == 1:
        if told:
            raise StageError(f"--gains: {source.name} has one output, which is its logit of relevance")
        if source.activation not in RISING:
            raise StageError(
                f"{source.name} applies {source.activation} to its logit; expected one of {', '.join(RISING[1:])}"
            )
        return None, "The model gives one logit."
    if source.activation not in OF_CLASSES:
        raise StageError(
            f"{source.name} applies {source.activation} to each of {classes} classes, so that they are not exclusive; "
            f"expected one of {', '.join(OF_CLASSES[1:])}"
        )
    names = source.names if len(source.names) == classes else tuple(f"LABEL_{k}" for k in range(classes))
    gains = _read_gains(names, told) if told else _known_gains(source, names)
    try:
        relevance = ExpectedGain(gains)
    except ValueError as error:
        raise StageError(f"the gains of {', '.join(names)}: {error}") from error
    worth = ", ".join(f"{name} {gain:g}" for name, gain in zip(names, gains, strict=True))
    where = "as --gains says" if told else "by their names" if source.names else "by their order"
    return (
        relevance,
        f"The model gives {classes} classes; its logit is that of their expected gain ({worth}, {where}).",
    )


def scale_of(source: Source, lists: Sequence[JudgedList], logits: NDArray[np.float32] | None) -> Scale:
    """Fit classes to judged lists by their logits [pairs], in list order; without them the score is the sigmoid."""
    if logits is None:
        own = "the model's own activation"
        if source.activation not in {"", "Sigmoid"}:
            own = f"which ranks as the model's own activation ({source.activation}) does"
        return Scale(
            labels=(Label(name="irrelevant", gain=0.0), Label(name="relevant", gain=1.0)),
            calibration=Calibration(method="ordinal", slope=1.0, thresholds=(0.0,)),
            note=f"The score is the sigmoid of the logit, {own}; it was not calibrated, for no judgements were given.",
        )
    grades = np.concatenate([np.array(judged.grades) for judged in lists])
    found = sorted(set(grades.tolist()))
    fitted = calibration.fit(logits, np.searchsorted(found, grades), len(found))
    labels = tuple(LABELS[grade] for grade in found)
    worth = ", ".join(f"{label.name} {label.gain:g}" for label in labels)
    return Scale(
        labels=labels,
        calibration=fitted,
        note=f"The score is the expected gain of the classes {worth}, calibrated on {len(grades)} judged pairs of "
        f"{len(lists)} queries.",
    )


def _read_gains(names: Sequence[str], told: str) -> list[float]:
    """Read `0,0.5,1`, in the order of the classes, or `irrelevant=0,exact=1`."""
    parts = [part.strip() for part in told.split(",")]
    given = dict(enumerate(parts))
    if all("=" in part for part in parts):
        by_name = {folded(part.rpartition("=")[0]): part.rpartition("=")[2] for part in parts}
        given = {place: by_name[folded(name)] for place, name in enumerate(names) if folded(name) in by_name}
    gains = [number(given.get(place, "")) for place in range(len(names))]
    if len(parts) != len(names) or not all(0 <= gain <= 1 for gain in gains):
        raise StageError(
            f"--gains {told}: expected a number in [0, 1] for each of {', '.join(names)}, in this order"
        )
    return gains


def _known_gains(source: Source, names: Sequence[str]) -> list[float]:
    """Return what classes are worth by their names, or by their order if there are two without names."""
    gains = [_gain(name) for name in names]
    if None not in gains:
        return [gain for gain in gains if gain is not None]
    numbers = [number(name) for name in names]
    if all(value >= 0 for value in numbers) and max(numbers) > 0:
        return [value / max(numbers) for value in numbers]
    if len(names) == 2 and all(name.startswith("LABEL_") for name in names):
        return [0.0, 1.0]
    raise StageError(
        f"{source.name} has the classes {shown(', '.join(names))}; say what each is worth by --gains, such as "
        f"{','.join(f'{place / (len(names) - 1):.2g}' for place in range(len(names)))}"
    )


def _gain(name: str) -> float | None:
    text = folded(name).replace("_", " ").replace("-", " ")
    if text in LABEL_NAMES:
        return TARGETS[LABEL_NAMES[text]]
    return 0.0 if text in WORTHLESS else 1.0 if text in WORTHY else None
