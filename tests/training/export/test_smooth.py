"""Scales of static int8: what they promise for any weights and any ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from training.export.smooth import smoothing, weight_scale

WEIGHTS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(-100, 100, width=32),
)


@given(WEIGHTS)
def test_rounded_neighbours_fit_sixteen_bits(weight: np.ndarray) -> None:
    """For any weights no two neighbours of one sign add up to more than 128 after rounding, nor does one to 127."""
    integer = np.rint(weight / weight_scale(weight, reduce_range=True))

    assert np.abs(integer).max() <= 127
    for part in (np.maximum(integer, 0), np.maximum(-integer, 0)):
        assert (part[:-1] + part[1:]).max(initial=0) <= 128


@given(WEIGHTS)
def test_a_step_is_never_wider_than_that_of_seven_bits(weight: np.ndarray) -> None:
    """The reduced range costs between nothing and a bit."""
    full, reduced = (weight_scale(weight, reduce_range=reduce) for reduce in (False, True))

    assert (full <= reduced).all()
    assert (reduced <= 2.0001 * full).all()


def test_the_largest_weight_uses_the_full_range_where_neighbours_allow() -> None:
    """Weights of alternating signs lose nothing by the reduction, two alike lose one bit."""
    alternating, alike = np.float32([[1], [-1], [1]]), np.float32([[1], [1], [-1]])

    assert weight_scale(alternating, reduce_range=True)[0] == pytest.approx(1 / 127)
    assert weight_scale(alike, reduce_range=True)[0] == pytest.approx(2 / 127)


def test_one_evens_out_the_activations_and_zero_the_weights() -> None:
    """At the ends of the scale all channels of x / r, or all rows of r W, reach equally far."""
    peak, weight = np.float32([8, 2, 1]), np.float32([[1, -2], [4, 1], [1, 1]])

    assert np.ptp(peak / smoothing(peak, [weight], 1.0)) == pytest.approx(0)
    assert np.ptp(np.abs(weight * smoothing(peak, [weight], 0.0)[:, None]).max(axis=1)) == pytest.approx(0)


def test_channels_never_seen_and_weights_of_zero_stay_finite() -> None:
    """A channel without activation or without weight gets a positive divisor, not infinity."""
    for peak in (np.float32([0, 0]), np.float32([0, 5])):
        for weight in (np.float32([[0], [0]]), np.float32([[0], [3]])):
            for smooth in (0.0, 0.5, 1.0):
                divisors = smoothing(peak, [weight], smooth)

                assert np.isfinite(divisors).all()
                assert (divisors > 0).all()


def test_the_loudest_reader_of_a_channel_decides() -> None:
    """Products that read the same activation share one divisor, set by the largest of their weights."""
    peak, quiet, loud = np.float32([4, 4]), np.float32([[1], [1]]), np.float32([[4], [1]])

    assert smoothing(peak, [quiet, loud], 0.5).tolist() == smoothing(peak, [loud], 0.5).tolist()
