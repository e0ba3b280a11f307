"""Whether int8 ranks as fp32 does is decided on lists, with judgements or without."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from training.pack.graphs import STOCK_DRIFT, broken_limits, fidelity
from training.pack.trial import own_lists

LISTS = own_lists()
PAIRS = sum(map(len, LISTS))
EXACT = np.random.default_rng(0).normal(0, 1, PAIRS).astype(np.float32)


def _noisy(spread: float) -> np.ndarray:
    return EXACT + np.random.default_rng(1).normal(0, spread, PAIRS).astype(np.float32)


@pytest.mark.parametrize("graded", [False, True])
def test_a_faithful_graph_keeps_its_limits(graded: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Rounding that moves logits by a hundredth of their spread passes."""
    found = fidelity(EXACT, _noisy(0.01), LISTS, graded=graded) | {"batch drift": 0.0}

    assert broken_limits(found) == []
    assert ("ndcg@10 change" in found) == graded


def test_an_unfaithful_graph_breaks_them() -> None:
    """Noise of half the spread is told by rank correlation and by the first ten."""
    found = fidelity(EXACT, _noisy(0.5), LISTS, graded=False) | {"batch drift": 0.0}

    assert [broken.split(" <")[0].rsplit(" ", 1)[0] for broken in broken_limits(found)] == [
        "list spearman",
        "top 10 overlap",
    ]


def test_nan_and_drift_break_limits() -> None:
    """A logit that is no number, and a score that depends on its batch, are refused."""
    found = fidelity(EXACT, EXACT, LISTS, graded=False)

    assert broken_limits(found | {"batch drift": 1e-6}) == ["batch drift 1e-06 > 0"]
    assert broken_limits(found | {"batch drift": 1e-6}, STOCK_DRIFT) == []  # as its fp32 graph drifts too
    assert broken_limits(found | {"batch drift": 0.2}, STOCK_DRIFT) == ["batch drift 0.2 > 1e-05"]
    assert len(broken_limits(found | {"batch drift": 0.0, "list spearman": float("nan")})) == 1


def test_lost_quality_breaks_the_limit_of_ndcg() -> None:
    """On judged lists a graph that ranks worse than fp32 by more than chance explains is refused."""
    gains = np.concatenate([judged.gains for judged in LISTS]).astype(np.float32)
    found = fidelity(gains, -gains, LISTS, graded=True) | {"batch drift": 0.0}

    assert any(broken.startswith("ndcg@10 change") for broken in broken_limits(found))


def test_short_lists_are_compared_by_their_better_half() -> None:
    """The first ten of a list of ten are always the same ten."""
    short = [dataclasses.replace(LISTS[0], product_ids=("a",) * 4, products=LISTS[0].products[:4])]
    before, after = np.array([4.0, 3, 2, 1], np.float32), np.array([4.0, 1, 3, 2], np.float32)

    assert fidelity(before, after, short, graded=False)["top 10 overlap"] == 0.5
