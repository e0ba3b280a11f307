"""Chooses how activations and weights share the 256 steps of int8.

Knows ranges of channels and weight matrices; does not know graphs, rows or batches.
Invariant: divisors and steps are positive and finite, whatever calibration saw.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

QUIET = 0.05  # of the mean channel peak: channels calibration hardly saw are not trusted below it
TINY = np.finfo(np.float32).tiny


def smoothing(peak: Floats, weights: Sequence[Floats], smooth: float) -> Floats:
    """Divisor r of every input channel of products x W, float32 [channels]: x / r and r W are rounded.

    r_j = peak_j^smooth / largest_j^(1 - smooth), where peak_j is the largest |x_j| that calibration saw
    and largest_j the largest |W_jk| over the weights [channels, out] of all products that read x.
    1 gives all channels of x one range, 0 all rows of W.
    Reference: Xiao et al., "SmoothQuant", ICML 2023, equation 4.

    >>> smoothing(np.float32([4, 1]), [np.float32([[1, 0.25], [-4, 0]])], 0.5).tolist()
    [2.0, 0.5]
    """
    trusted = np.maximum(peak, QUIET * peak.mean() + TINY)
    largest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    largest = np.maximum(largest, QUIET * largest.mean() + TINY)
    divisors: Floats = (trusted**smooth / largest ** (1 - smooth)).astype(np.float32)
    return divisors


def weight_scale(weight: Floats, *, reduce_range: bool) -> Floats:
    """Step of each output channel, float32 [out], of weights [in, out] to be stored within -127..127.

    CPUs without VNNI add neighbouring u8 x s8 products in 16 bits, and 2 * 255 * 127 does not fit. With
    `reduce_range` steps are so wide that neighbours of one sign never add up to more than 128 once they
    are rounded: 255 * 128 fits. Most weights lie far below the largest, so steps are 1 to 2 times as wide,
    where plain 7-bit weights always double them.

    1 and 0.5 are neighbours of one sign and decide:

    >>> round(float(weight_scale(np.float32([[1.0], [0.5], [-1.0]]), reduce_range=True)[0] * 127), 6)
    1.5
    """
    bound = np.abs(weight).max(axis=0)
    if reduce_range:
        for part in (np.maximum(weight, 0), np.maximum(-weight, 0)):
            bound = np.maximum(bound, (part[:-1] + part[1:]).max(axis=0, initial=0))
    scale: Floats = np.maximum(bound / 127, TINY).astype(np.float32)
    return scale
