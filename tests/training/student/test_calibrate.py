"""Calibration: recovers what made the data, and survives data that would break a plain fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pytest.importorskip("scipy", reason="the training environment is not installed")

from bundle.manifest import Calibration
from bundle.score import class_probabilities
from training.measure.metrics import expected_calibration_error
from training.stages import StageError
from training.student import calibrate

TRUE = Calibration(method="ordinal", slope=0.7, thresholds=(-2.0, -1.0, 0.5))


def drawn(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes drawn from `TRUE`."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(1, 3, size)
    edges = class_probabilities(logits, TRUE).cumsum(axis=1)
    return logits, (draws.random(size)[:, None] > edges).sum(axis=1)


def test_fit_recovers_the_parameters_that_made_the_data() -> None:
    """From 8,000 pairs slope and thresholds come back within sampling error."""
    found = calibrate.fit(*drawn(8000), 4)

    assert found.slope == pytest.approx(TRUE.slope, rel=0.05)
    assert found.thresholds == pytest.approx(TRUE.thresholds, abs=0.12)


def test_fit_is_the_same_in_any_unit_of_the_logit() -> None:
    """Logits a thousand times larger give a slope a thousand times smaller and the same probabilities."""
    logits, classes = drawn(2000)
    small, large = calibrate.fit(logits, classes, 4), calibrate.fit(logits * 1000, classes, 4)

    np.testing.assert_allclose(
        class_probabilities(logits, small), class_probabilities(logits * 1000, large), atol=1e-3
    )


def test_fit_lowers_the_calibration_error_on_other_pairs() -> None:
    """On pairs the fit did not see, its error is small where the raw sigmoid's is not."""
    found = calibrate.fit(*drawn(4000, seed=1), 4)
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
    found = calibrate.fit(logits, classes, 4)
    probabilities = class_probabilities(logits, found)

    assert found.slope > 0
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("logits", [[], [np.nan]])
def test_fit_refuses_nothing_and_nan(logits: list[float]) -> None:
    """No pairs, or a logit that is no number, is an error."""
    with pytest.raises(ValueError, match="at least one pair"):
        calibrate.fit(logits, np.zeros(len(logits), int), 4)


def test_out_of_fold_never_learns_from_its_own_query() -> None:
    """Changing the classes of one query leaves that query's own probabilities as they were."""
    logits, classes = drawn(200)
    owners = np.arange(200) // 10
    before = calibrate.out_of_fold(logits, classes, owners, 20, 0)
    changed = np.where(owners == 4, 3 - classes, classes)
    after = calibrate.out_of_fold(logits, changed, owners, 20, 0)

    np.testing.assert_array_equal(before[owners == 4], after[owners == 4])
    assert not np.array_equal(before[owners != 4], after[owners != 4])


def test_stage_writes_a_calibration_from_training_pairs(context: Callable[..., Any]) -> None:
    """The file is the manifest's record, and the figures say what they rest on."""
    made = context("calibrate")
    figures = calibrate.run(made)
    written = Calibration.model_validate_json((made.out / "calibration.json").read_bytes())

    assert len(written.thresholds) == 3
    assert figures["datasets"] == "s"
    assert figures["pairs"] > 50
    assert figures["exact error after"] <= 0.2


def test_stage_names_a_missing_data_set(context: Callable[..., Any]) -> None:
    """A data set that is not there is an error, not a fit on nothing."""
    with pytest.raises(StageError, match="no judged pair"):
        calibrate.run(context("calibrate", "calibrate.datasets=['nope']"))
