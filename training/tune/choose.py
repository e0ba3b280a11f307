"""PURE. How far to go from the base model, chosen on held-out queries, and whether it was worth it.

Knows figures of held-out lists; does not know models or texts.
Invariant: what is reported for a list was chosen without that list's fold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.splits import normalize_query

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

LEAST_FOLDS, MOST_FOLDS = 2, 4
MOST_CROSSED = 4000  # judged pairs up to which every list is held out once; above it, one share of them is
HELD_OUT = 0.3  # that share


def folds_of(queries: list[str], pairs: int, seed: int) -> Places:
    """Return the fold [lists] in which each list is held out, -1 if it never is.

    Queries that are equal but for case, space and punctuation share a fold.
    """
    forms = [normalize_query(query) for query in queries]
    distinct = list(dict.fromkeys(forms))
    order = np.random.default_rng(seed).permutation(len(distinct))
    if pairs > MOST_CROSSED:
        dealt = np.where(order < round(HELD_OUT * len(distinct)), 0, -1)
    else:
        dealt = order % max(LEAST_FOLDS, min(MOST_FOLDS, len(distinct) // 5))
    of_form = dict(zip(forms, [-1] * len(forms), strict=True)) | dict(
        zip(distinct, dealt.tolist(), strict=True)
    )
    return np.array([of_form[form] for form in forms])


def crossed(figures: Floats, folds: Places) -> tuple[Places, int]:
    """Return which candidate each list is reported under [lists], and the one that is best on all.

    `figures` [candidates, lists] are of lists that each candidate's model did not see. The candidate for a list is
    the best by mean on the lists of the other folds, so that no list had a say in its own report; with a single
    fold, the lists are halved for it.

    >>> crossed(np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), np.array([0, 0, 1, 1]))[0].tolist()
    [0, 0, 1, 1]
    """
    parts = folds if len(set(folds.tolist())) > 1 else np.arange(figures.shape[1]) % 2
    chosen = np.empty(figures.shape[1], np.int64)
    for part in set(parts.tolist()):
        held_out = parts == part
        chosen[held_out] = int(figures[:, ~held_out].mean(axis=1).argmax())
    return chosen, int(figures.mean(axis=1).argmax())
