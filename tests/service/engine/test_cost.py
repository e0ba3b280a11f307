"""Tests of service/engine/cost.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import CostModel, LatenessEstimate

SHAPES = [(rows * length, rows) for rows in (1, 2, 4, 8, 16) for length in (8, 16, 32, 64)]


def _taught(costs: tuple[float, float, float], runs: int, noise: float = 0.0) -> CostModel:
    model, rng = CostModel(), np.random.default_rng(1)
    for _ in range(runs):
        tokens, rows = SHAPES[rng.integers(len(SHAPES))]
        exact = costs[0] * tokens + costs[1] * rows + costs[2]
        model.observe(tokens, rows, exact * rng.lognormal(0, noise))
    return model


@pytest.mark.parametrize("costs", [(2e-5, 1e-4, 5e-4), (1e-6, 0.0, 1e-3), (3e-4, 1e-3, 0.0)])
def test_it_learns_what_runs_cost(costs: tuple[float, float, float]) -> None:
    """After some hundred runs, with noise, every shape is predicted within a tenth."""
    model = _taught(costs, 600, noise=0.1)

    for tokens, rows in SHAPES:
        exact = costs[0] * tokens + costs[1] * rows + costs[2]
        assert model.seconds(tokens, rows) == pytest.approx(exact, rel=0.1)


def test_it_follows_a_machine_that_slows_down() -> None:
    """When every run takes three times as long, so does the prediction after a while."""
    model = _taught((2e-5, 1e-4, 5e-4), 400)
    before = model.seconds(400, 10)
    for _ in range(20):
        for tokens, rows in SHAPES:
            model.observe(tokens, rows, 3 * (2e-5 * tokens + 1e-4 * rows + 5e-4))

    assert model.seconds(400, 10) == pytest.approx(3 * before, rel=0.1)


def test_one_long_pause_is_not_believed() -> None:
    """A run that took a thousand times its prediction moves the model by little."""
    model = _taught((2e-5, 1e-4, 5e-4), 400)
    before = model.seconds(400, 10)
    model.observe(400, 10, 1_000 * before)
    for tokens, rows in SHAPES[:8]:
        model.observe(tokens, rows, 2e-5 * tokens + 1e-4 * rows + 5e-4)

    assert model.seconds(400, 10) == pytest.approx(before, rel=0.1)


@given(st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 500), st.floats()), max_size=40))
def test_any_observation_leaves_a_usable_model(runs: list[tuple[int, int, float]]) -> None:
    """Whatever was observed, predictions are finite, not negative, and grow with tokens, rows and runs."""
    model = CostModel()
    for tokens, rows, seconds in runs:
        model.observe(tokens, rows, seconds)
    least = model.seconds(8, 1)

    assert math.isfinite(least)
    assert 0 <= least <= model.seconds(16, 1) <= model.seconds(16, 2) <= model.seconds(16, 2, 2)


def test_requests_that_are_late_make_others_expected_later() -> None:
    """A factor and a spread are learnt from what was predicted and what was, and forgotten when it passes."""
    lateness = LatenessEstimate()
    assert 0.2 == lateness.expected_s(0.2, spreads=2)
    for _ in range(100):
        lateness.observe(0.2, 0.3)
        lateness.observe(0.2, 0.5)
    late = lateness.expected_s(0.2), lateness.expected_s(0.2, spreads=1)
    for _ in range(200):
        lateness.observe(0.2, 0.2)

    assert late == pytest.approx((0.4, 0.5), abs=0.03)
    assert lateness.expected_s(0.2, spreads=1) == pytest.approx(0.2, abs=0.01)


def test_nothing_is_expected_earlier_than_predicted() -> None:
    """Requests that were done early do not make room that is not there."""
    lateness = LatenessEstimate()
    for _ in range(100):
        lateness.observe(0.2, 0.1)

    assert 0.2 == lateness.expected_s(0.2)
