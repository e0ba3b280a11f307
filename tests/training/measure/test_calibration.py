"""Calibration: recovers what made the data, and survives data that would break a plain fit."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the training environment is not installed")

from bundle.manifest import Calibration
from bundle.score import class_probabilities
from training.measure.calibration import fit
from training.measure.metrics import expected_calibration_error

TRUE = Calibration(method="ordinal", slope=0.7, thresholds=(-2.0, -1.0, 0.5))


def drawn(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes drawn from `TRUE`."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(1, 3, size)
    edges = class_probabilities(logits, TRUE).cumsum(axis=1)
    return logits, (draws.random(size)[:, None] > edges).sum(axis=1)


def test_fit_recovers_the_parameters_that_made_the_data() -> None:
    """From 8,000 pairs slope and thresholds come back within sampling error."""
    found = fit(*drawn(8000), 4)

    assert found.slope == pytest.approx(TRUE.slope, rel=0.05)
    assert found.thresholds == pytest.approx(TRUE.thresholds, abs=0.12)


def test_fit_is_the_same_in_any_unit_of_the_logit() -> None:
    """Logits a thousand times larger give a slope a thousand times smaller and the same probabilities."""
    logits, classes = drawn(2000)
    small, large = fit(logits, classes, 4), fit(logits * 1000, classes, 4)

    np.testing.assert_allclose(
        class_probabilities(logits, small), class_probabilities(logits * 1000, large), atol=1e-3
    )


def test_fit_lowers_the_calibration_error_on_other_pairs() -> None:
    """On pairs the fit did not see, its error is small where the raw sigmoid's is not."""
    found = fit(*drawn(4000, seed=1), 4)
    logits, classes = drawn(4000, seed=2)
    raw = expected_calibration_error(1 / (1 + np.exp(-logits)), classes == 3)

    assert raw > 0.05
    assert expected_calibration_error(class_probabilities(logits, found)[:, 3], classes == 3) < 0.03


@pytest.mark.parametrize(
    ("logits", "classes"),
    [
        (np.linspace(-3, 3, 50), np.full(50, 3)),
        (np.linspace(-3, 3, 50), np.arange(50) // 25 * 3),
        (np.linspace(-3, 3, 50), 3 - np.arange(50) // 13),
        (np.zeros(8), np.arange(8) % 4),
        (np.array([1.0]), np.array([2])),
        (np.linspace(-1e6, 1e6, 40), np.arange(40) // 10),
    ],
    ids=["one class", "separated, two missing", "reversed", "constant logits", "one pair", "huge logits"],
)
def test_fit_stays_valid_on_awkward_data(logits: np.ndarray, classes: np.ndarray) -> None:
    """Slope is positive, thresholds ascend, probabilities are finite and sum to one."""
    found = fit(logits, classes, 4)
    probabilities = class_probabilities(logits, found)

    assert found.slope > 0
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("logits", [[], [np.nan]])
def test_fit_refuses_nothing_and_nan(logits: list[float]) -> None:
    """No pairs, or a logit that is no number, is an error."""
    with pytest.raises(ValueError, match="at least one pair"):
        fit(logits, np.zeros(len(logits), int), 4)
