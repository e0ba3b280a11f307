"""PURE. A pair's logit, and what the pair took of the model's input, as one number of 64 bits.

Knows the bits of numbers; does not know who keeps them.
Invariant: rounded to float32 such a number is its logit, bit for bit, so whoever wants the logit alone never knows.

A float32 leaves the last 29 bits of a float64 empty. The tokens of the pair and whether it was cut stand in the last 28 of
them, which is less than half of a float32's last place, so that no rounding moves the logit.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

PackedLogits = NDArray[np.float64]
_SPARE: Final = (1 << 28) - 1


def pack_usage(logits: NDArray[np.float32], tokens: Sequence[int], cut: bytes) -> PackedLogits:
    r"""Return logits [n] with the tokens of their pairs, below 2**27, and a byte for each, 1 if it was cut, else 0.

    >>> pack_usage(np.float32([0.1]), [20], b"\1").astype(np.float32)
    array([0.1], dtype=float32)
    """
    use = np.array(tokens, np.int64) << 1 | np.frombuffer(cut, np.uint8)
    return (logits.astype(np.float64).view(np.int64) | use).view(np.float64)


def unpack_usage(known: Sequence[float]) -> tuple[int, int]:
    r"""Return the tokens of pairs, and how many of them were cut.

    >>> unpack_usage(pack_usage(np.float32([0.1, -7]), [20, 30], b"\1\0").tolist())
    (50, 1)
    """
    use = np.array(known, np.float64).view(np.int64) & _SPARE
    return int((use >> 1).sum()), int((use & 1).sum())
