"""Runs and judgements in the formats of trec_eval, so that any other tool can measure the same.

Knows lists, scores and four-column files; does not know models.
Invariant: an id is one word, and gains become whole numbers in the same proportions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from urllib.parse import quote

import numpy as np

from training.data.lists import JudgedList
from training.measure.figures import Scores

FINEST = 1000  # the largest denominator that a gain is read with
ROUNDING = 1e-6
COARSEST = 100  # steps of gains that no common denominator below FINEST has


def run_file(lists: Sequence[JudgedList], scores: Scores, tag: str) -> str:
    """Return a run: query, Q0, product, rank, score, tag; the best of each query first."""
    lines = []
    for judged, values in zip(lists, scores, strict=True):
        order = np.argsort(-np.asarray(values, np.float64), kind="stable")
        lines += [
            f"{word(judged.query_id)} Q0 {word(judged.product_ids[at])} {rank} {float(values[at])!r} {word(tag)}\n"
            for rank, at in enumerate(order, start=1)
        ]
    return "".join(lines)


def qrels_file(lists: Sequence[JudgedList]) -> str:
    """Return the judgements: query, 0, product, gain as a whole number."""
    steps = scale(lists)
    return "".join(
        f"{word(judged.query_id)} 0 {word(product)} {round(float(gain) * steps)}\n"
        for judged in lists
        for product, gain in zip(judged.product_ids, judged.gains, strict=True)
    )


def scale(lists: Sequence[JudgedList]) -> int:
    """Return the number that makes every gain a whole number, for trec_eval reads no others."""
    gains = {float(gain) for judged in lists for gain in judged.gains}
    common = math.lcm(*(Fraction(gain).limit_denominator(FINEST).denominator for gain in gains))
    is_exact = all(abs(gain * common - round(gain * common)) < ROUNDING for gain in gains)
    return common if common <= FINEST and is_exact else COARSEST


def word(text: str) -> str:
    """Return an id without the spaces that part the columns of a file.

    >>> word("wireless mouse")
    'wireless%20mouse'
    """
    return re.sub(r"\s", lambda space: quote(space[0]), text)
