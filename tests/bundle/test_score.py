"""Probabilities, scores and labels of logits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.manifest import Calibration, Label
from bundle.score import class_probabilities, label_names, relevance

LABELS = [Label(name=name, gain=gain) for name, gain in (("I", 0.0), ("C", 0.01), ("S", 0.1), ("E", 1.0))]
CALIBRATION = Calibration(method="ordinal", slope=2.0, thresholds=(-1.0, 0.5, 3.0))
LOGITS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
CALIBRATIONS = st.builds(
    Calibration,
    method=st.just("ordinal"),
    slope=st.floats(1e-3, 1e3),
    thresholds=st.lists(st.floats(-50, 50), min_size=3, max_size=3, unique=True).map(
        lambda values: tuple(sorted(values))
    ),
)


def _scores(logits: list[float], calibration: Calibration = CALIBRATION) -> np.ndarray:
    return relevance(class_probabilities(logits, calibration), LABELS)


def test_hand_computed_probabilities() -> None:
    """At slope 2 and logit 1 the margins are 3, 1.5 and -1."""
    at_least = [1 / (1 + math.exp(-margin)) for margin in (3.0, 1.5, -1.0)]

    expected = [1 - at_least[0], at_least[0] - at_least[1], at_least[1] - at_least[2], at_least[2]]

    assert class_probabilities([1.0], CALIBRATION).tolist() == [pytest.approx(expected, rel=1e-12)]


def test_hand_computed_relevance() -> None:
    """The score is the expected gain."""
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]])

    assert relevance(probabilities, LABELS).tolist() == pytest.approx([0.002 + 0.03 + 0.4, 0.0])


def test_far_tails_do_not_cancel() -> None:
    """At a logit of -30 the top class still has the probability e^-63 of its formula, not zero."""
    (row,) = class_probabilities([-30.0], CALIBRATION)

    assert row[3] == pytest.approx(math.exp(-63), rel=1e-9)
    assert row[2] == pytest.approx(math.exp(-60.5) - math.exp(-63), rel=1e-9)


@given(LOGITS, CALIBRATIONS)
def test_rows_are_probabilities(logits: list[float], calibration: Calibration) -> None:
    """Every row is non-negative and sums to one, for any finite logit, without a warning."""
    probabilities = class_probabilities(logits, calibration)

    assert probabilities.shape == (len(logits), 4)
    assert (probabilities >= 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-12)


@given(LOGITS, CALIBRATIONS)
def test_score_is_in_the_unit_interval_and_rises_with_the_logit(
    logits: list[float], calibration: Calibration
) -> None:
    """A larger logit never has a smaller score."""
    scores = _scores(sorted(logits), calibration)

    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(scores) >= -1e-12).all()


@given(LOGITS)
def test_score_does_not_depend_on_the_batch(logits: list[float]) -> None:
    """A logit has the same score, bit for bit, alone and among others."""
    assert _scores(logits).tolist() == [_scores([logit])[0] for logit in logits]


def test_float32_logits_are_scored_in_float64() -> None:
    """What a runtime returns is widened before anything is computed."""
    logits = np.array([0.1, -2.5], dtype=np.float32)

    assert (
        _scores(logits.tolist()).tolist()
        == relevance(class_probabilities(logits, CALIBRATION), LABELS).tolist()
    )


def test_no_rows() -> None:
    """No logits give no rows of the right width."""
    assert class_probabilities(np.empty(0), CALIBRATION).shape == (0, 4)
    assert label_names(class_probabilities(np.empty(0), CALIBRATION), LABELS) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logit_that_is_not_finite_is_refused(bad: float) -> None:
    """A broken model's output is an error, not a score."""
    with pytest.raises(ValueError, match="not finite"):
        class_probabilities([0.0, bad], CALIBRATION)


def test_other_shapes_are_refused() -> None:
    """Logits are a vector; a two-column head is a mistake."""
    with pytest.raises(ValueError, match="shape"):
        class_probabilities(np.zeros((2, 1)), CALIBRATION)


def test_label_is_the_most_probable_class() -> None:
    """Of two equally probable classes the less relevant one is named."""
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.0, 0.5], [0.0, 0.4, 0.4, 0.2]])

    assert label_names(probabilities, LABELS) == ["E", "I", "C"]
