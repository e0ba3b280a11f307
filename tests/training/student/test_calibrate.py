"""The calibrate stage: fitted on the right pairs, and measured on pairs that no fit saw."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pytest.importorskip("scipy", reason="the training environment is not installed")

from bundle.manifest import Calibration
from training.errors import StageError
from training.student import calibrate


def test_out_of_fold_never_learns_from_its_own_query() -> None:
    """Changing the classes of one query leaves that query's own probabilities as they were."""
    draws = np.random.default_rng(0)
    logits, classes = draws.normal(1, 3, 200), draws.integers(0, 4, 200)
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
