"""What a model's outputs are worth, by flags, by the names of its classes, and by judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from bundle.score import class_probabilities, relevance
from training.errors import StageError
from training.importing.folder import Source
from training.importing.worth import relevance_of, scale_of
from training.pack.trial import own_lists


def _source(*names: str, activation: str = "") -> Source:
    return Source("mine", Path(), "bert", (), activation, None, lowers=False, names=names)


def _gains(names: tuple[str, ...], told: str = "") -> list[float]:
    made, _ = relevance_of(_source(*names), len(names), told)
    assert made is not None
    found = [0.0] * len(names)
    for place, log in zip(made.up.tolist(), made.log_up.tolist(), strict=True):
        found[place] = round(float(np.exp(log)), 6)
    return found


@pytest.mark.parametrize(
    ("names", "gains"),
    [
        (("LABEL_0", "LABEL_1"), [0, 1]),
        (("not_relevant", "relevant"), [0, 1]),
        (("Positive", "Negative"), [1, 0]),
        (("irrelevant", "complement", "substitute", "exact"), [0, 0, 0.5, 1]),
        (("E", "S", "C", "I"), [1, 0.5, 0, 0]),
        (("0", "1", "2"), [0, 0.5, 1]),
    ],
)
def test_classes_are_worth_what_their_names_say(names: tuple[str, ...], gains: list[float]) -> None:
    """ESCI's names, grades, yes and no are known; two classes without names are no and yes."""
    assert _gains(names) == gains


@pytest.mark.parametrize("told", ["0,0.25,1", "a=0, c=1, b=0.25"])
def test_a_flag_says_what_classes_are_worth(told: str) -> None:
    """In the order of the classes or by their names."""
    assert _gains(("a", "b", "c"), told) == [0, 0.25, 1]


@pytest.mark.parametrize("told", ["", "0,1", "0,1,2", "a=0,b=1", "a=0,b=1,d=1", "0,0,0", "x,y,z"])
def test_gains_that_are_not_understood(told: str) -> None:
    """Classes of unknown names want a gain for each, and something to gain."""
    with pytest.raises(StageError, match="gain"):
        _gains(("a", "b", "c"), told)


@pytest.mark.parametrize(("classes", "activation"), [(1, "Softmax"), (1, "LogSigmoid"), (2, "Sigmoid")])
def test_activations_that_are_not_understood(classes: int, activation: str) -> None:
    """What does not keep the order, or makes classes that are not exclusive, is refused."""
    with pytest.raises(StageError, match=activation):
        relevance_of(_source(activation=activation), classes, "")


def test_gains_for_a_single_output() -> None:
    """A model of one logit has no classes to name."""
    with pytest.raises(StageError, match="--gains"):
        relevance_of(_source(), 1, "0,1")


def test_without_judgements_the_score_is_the_sigmoid() -> None:
    """Two classes, slope 1, threshold 0; the note says what the model's own activation was."""
    scale = scale_of(_source(activation="Identity"), [], None)
    probabilities = class_probabilities([0.3], scale.calibration)

    assert relevance(probabilities, scale.labels) == pytest.approx(1 / (1 + np.exp(-0.3)))
    assert "Identity" in scale.note


def test_judgements_calibrate_the_score() -> None:
    """The classes are the grades that occur, and their shares are those of the judgements."""
    lists = own_lists()
    grades = np.concatenate([np.array(judged.grades) for judged in lists])
    logits = (grades + np.random.default_rng(0).normal(0, 1, len(grades))).astype(np.float32)
    scale = scale_of(_source(), lists, logits)
    shares: Any = class_probabilities(logits, scale.calibration).mean(axis=0)

    assert [label.name for label in scale.labels] == ["irrelevant", "complement", "substitute", "exact"]
    assert shares == pytest.approx(np.bincount(grades) / len(grades), abs=0.03)
