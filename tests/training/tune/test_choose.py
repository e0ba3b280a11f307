"""Held-out folds, and the choice that no list has a say in for itself."""

import numpy as np

from training.tune.choose import HELD_OUT, MOST_CROSSED, crossed, folds_of


def test_equal_queries_share_a_fold() -> None:
    """Case, space and punctuation do not let a query be learnt under one form and measured under another."""
    queries = [f"{word} {number}" for number in range(20) for word in ("Red hat", "red-hat ")]

    folds = folds_of(queries, 100, seed=0)

    assert (folds[::2] == folds[1::2]).all()
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3]


def test_many_pairs_are_held_out_once() -> None:
    """Above the limit one share of the queries is held out, and the others always learnt."""
    folds = folds_of([str(number) for number in range(100)], MOST_CROSSED + 1, seed=0)

    assert set(folds.tolist()) == {-1, 0}
    assert (folds == 0).sum() == HELD_OUT * 100


def test_few_queries_make_few_folds() -> None:
    """Five queries are held out in two halves."""
    assert set(folds_of(list("abcde"), 20, seed=0).tolist()) == {0, 1}


def test_noise_alone_gains_nothing() -> None:
    """The best of many candidates that are noise looks good on its own lists, and is reported as what it is."""
    draws = np.random.default_rng(0)
    reported, flattered = [], []
    for _ in range(200):
        figures = draws.normal(size=(20, 24))
        chosen, best = crossed(figures, np.arange(24) % 4)
        reported.append(figures[chosen, np.arange(24)].mean())
        flattered.append(figures[best].mean())

    assert abs(np.mean(reported)) < 0.05
    assert np.mean(flattered) > 0.2


def test_one_fold_is_halved() -> None:
    """With a single held-out share, each half is reported under what the other half chose."""
    figures = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])

    chosen, _ = crossed(figures, np.zeros(4, np.int64))

    assert chosen.tolist() == [0, 1, 0, 1]
