"""PURE. The percentile that every benchmark reports.

Knows numbers; does not know what they measure.
Invariant: a percentile is one of the values, never one between two of them.
"""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of all values do not exceed; None of nothing.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5), percentile([3.0, 1.0, 2.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
