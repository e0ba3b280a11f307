"""What an imported or tuned model is tried on: rows to calibrate int8 with and lists to compare its ranking on.

Knows judged lists that were given, and those that ship with the project; does not know models.
Invariant: the same lists and tokenizer give the same trial, and long and odd texts are always a part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.rows import Row
from bundle.text import PairEncoder, Product
from training.data.golden import golden_pairs
from training.data.grades import judged
from training.data.lists import JudgedList, encode_lists, encode_pairs, lists_of
from training.data.synthetic import judged_pairs
from training.evaluate.reference import sample_lists

CALIBRATION_PAIRS = 512
TRIAL_PAIRS = (
    2000  # of given lists: a minute of a model of 6 layers, and the mean over lists is known to a hundredth
)
OWN_LISTS, OWN_PRODUCTS = 12, 32
FULL_TEXT = "Garden hose, green, 15 m, kink-free, with brass connectors and ten spray patterns. " * 400


@dataclass(frozen=True, slots=True)
class Trial:
    """Pairs and their rows that calibrate int8, lists and their rows that it is judged on; `graded`: by their gains too."""

    pairs: Sequence[tuple[str, Product]]
    calibration: Sequence[Row]
    lists: Sequence[JudgedList]
    rows: Sequence[Row]
    graded: bool


def make_trial(encoder: PairEncoder, given: Sequence[JudgedList]) -> Trial:
    """Draw the trial from the lists that were given, or without any from the project's own."""
    lists = sample_lists(given or own_lists(), TRIAL_PAIRS, seed=0)
    pairs = [(told.query, product) for told in lists for product in told.products]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:CALIBRATION_PAIRS]
    some = [pairs[place] for place in chosen] + golden_pairs()
    some.append(("garden hose 15m", Product(title=FULL_TEXT)))
    return Trial(
        pairs=some,
        calibration=encode_pairs(encoder, some),
        lists=lists,
        rows=encode_lists(encoder, lists),
        graded=bool(given),
    )


def own_lists() -> list[JudgedList]:
    """Return lists of the invented shop that ships with the project; their labels are not used."""
    rows = judged_pairs(seed=0, queries=OWN_LISTS, per_query=OWN_PRODUCTS)
    return lists_of(judged(row) | {"dataset": "synthetic"} for row in rows)
