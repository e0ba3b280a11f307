"""Tests of service/rollout/trial.py."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rollout.trial import (
    MARGIN,
    MIN_DOCUMENTS,
    MIN_LISTS,
    WINDOW,
    AbortReason,
    Agreement,
    AnswerWindow,
    Limits,
    Trial,
    compare_scores,
    find_abort_reason,
    is_sampled,
    kendall_tau,
    overlap_at,
)

SHARES = st.floats(0, 1)
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30)
LIMITS = Limits(least_overlap=0.5, least_tau=0.25, most_slowdown=2.0)
SAME = Agreement(1.0, 1.0, 0.0)
OTHER = Agreement(0.1, -0.1, 0.5)


@given(st.text(st.characters()), SHARES, SHARES)
def test_a_larger_share_keeps_who_is_in_the_smaller(key: str, one: float, two: float) -> None:
    """A query, of any characters, goes the same way each time, and whoever takes part in a share does in a larger one."""
    low, high = sorted((one, two))

    assert is_sampled(key, low) == is_sampled(key, low)
    assert is_sampled(key, high) >= is_sampled(key, low)
    assert (is_sampled(key, 0.0), is_sampled(key, 1.0)) == (False, True)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_kept(share: float) -> None:
    """Of many queries as many take part as the share says, within three standard deviations."""
    keys = [f"query {number}" for number in range(20_000)]
    found = sum(is_sampled(key, share, "canary") for key in keys) / len(keys)

    assert abs(found - share) < 3 * math.sqrt(share * (1 - share) / len(keys))


def test_salts_are_independent() -> None:
    """Whether a query is in one share says nothing about another share under another salt."""
    keys = [f"query {number}" for number in range(20_000)]
    both = sum(is_sampled(key, 0.5, "canary") and is_sampled(key, 0.5, "shadow") for key in keys) / len(keys)

    assert abs(both - 0.25) < 0.01


@given(PAIRS)
def test_tau_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    """Counting concordant, discordant and tied pairs one by one gives the same tau-b."""
    concordant = discordant = untied_first = untied_second = 0
    for (a, x), (b, y) in itertools.combinations(pairs, 2):
        concordant += (a - b) * (x - y) > 0
        discordant += (a - b) * (x - y) < 0
        untied_first += a != b
        untied_second += x != y
    first, second = np.array(pairs, np.float64).T
    expected = float(untied_first == untied_second)
    if untied_first and untied_second:
        expected = (concordant - discordant) / math.sqrt(untied_first * untied_second)

    assert kendall_tau(first, second) == pytest.approx(expected)
    assert kendall_tau(second, first) == pytest.approx(expected)
    assert kendall_tau(first, first) == pytest.approx(1.0)


@given(PAIRS, st.integers(1, 12))
def test_overlap_is_that_of_two_sorted_lists(pairs: list[tuple[int, int]], top: int) -> None:
    """The best of each list, sorted as an answer is, with the ties in the order of the request."""
    first, second = np.array(pairs, np.float64).T
    best = [set(sorted(range(len(pairs)), key=lambda i: (-scores[i], i))[:top]) for scores in (first, second)]

    assert overlap_at(first, second, top) == len(best[0] & best[1]) / min(top, len(pairs))


def test_a_reversed_list_disagrees() -> None:
    """Twenty documents in the reverse order have nothing in common at the top, and a tau of -1."""
    scores = np.arange(20, dtype=np.float64) / 20
    told = compare_scores(scores, scores[::-1])

    assert told is not None
    assert (told.overlap_at_10, told.kendall_tau) == (0.0, pytest.approx(-1.0))
    assert told.score_difference == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([0.5], [0.5]), ([0.5, np.nan], [0.5, 0.6]), ([np.nan, 0.5], [0.5, np.nan])],
)
def test_fewer_than_two_common_scores_tell_nothing(first: list[float], second: list[float]) -> None:
    """An order needs two documents that both models scored."""
    assert compare_scores(np.array(first), np.array(second)) is None


def test_a_model_without_an_opinion_does_not_agree() -> None:
    """One score for all documents is no order: tau is 0 beside a model that has one, and 1 beside another such model."""
    flat, steep = np.full(5, 0.5), np.arange(5.0)

    assert (kendall_tau(flat, steep), kendall_tau(steep, flat), kendall_tau(flat, flat)) == (0.0, 0.0, 1.0)


def test_only_the_last_answers_count() -> None:
    """A window later nothing is left of failures before, and no more is held than the window."""
    tally = AnswerWindow()
    for _ in range(WINDOW):
        tally.add(10, 10)
    assert (tally.answers, tally.documents, tally.failing) == (WINDOW, 10 * WINDOW, 1.0)
    for _ in range(WINDOW):
        tally.add(10, 0)

    assert (tally.answers, tally.documents, tally.failing) == (WINDOW, 10 * WINDOW, 0.0)


def test_only_the_last_lists_count() -> None:
    """The mean is that of the last lists; before the first one there is none."""
    trial = Trial()
    assert trial.agreement is None
    trial.compared(OTHER)
    trial.compared(SAME)
    assert trial.agreement == Agreement(0.55, 0.45, 0.25)
    for _ in range(WINDOW):
        trial.compared(SAME)

    assert (trial.lists, trial.agreement) == (WINDOW, SAME)


@pytest.mark.parametrize(
    ("failed", "of", "stable_failed", "slowdown", "lists", "agreement", "expected"),
    [
        (0, 2_000, 0, 1.0, MIN_LISTS, SAME, None),
        (2_000, 2_000, 0, 9.0, MIN_LISTS, OTHER, "failing"),
        (MIN_DOCUMENTS, MIN_DOCUMENTS, 0, 1.0, 0, SAME, "failing"),
        (MIN_DOCUMENTS - 1, MIN_DOCUMENTS - 1, 0, 1.0, 0, SAME, None),
        (500, 2_000, 500, 1.0, 0, SAME, None),
        (500, 2_000, 475, 1.0, 0, SAME, "failing"),
        (0, 2_000, 0, 2.1, 0, SAME, "slow"),
        (0, 2_000, 0, 2.0, 0, SAME, None),
        (0, MIN_LISTS - 1, 0, 9.0, 0, SAME, None),
        (0, 2_000, 0, 1.0, MIN_LISTS, OTHER, "disagreeing"),
        (0, 2_000, 0, 1.0, MIN_LISTS - 1, OTHER, None),
        (0, 2_000, 0, 1.0, MIN_LISTS, Agreement(0.4, 0.9, 0.0), "disagreeing"),
        (0, 2_000, 0, 1.0, MIN_LISTS, Agreement(0.9, 0.2, 0.0), "disagreeing"),
        (0, 2_000, 0, 1.0, MIN_LISTS, Agreement(0.5, 0.25, 0.9), None),
    ],
)
def test_a_canary_goes_for_one_of_three_reasons(  # noqa: PLR0913, PLR0917 - a table
    failed: int,
    of: int,
    stable_failed: int,
    slowdown: float,
    lists: int,
    agreement: Agreement,
    expected: AbortReason | None,
) -> None:
    """Failures above the stable model's, too much time, or another order; never before enough was seen."""
    trial = Trial()
    answers = min(of, WINDOW)
    for number in range(answers):
        share = of // answers
        trial.candidate.add(share, failed * (number + 1) // answers - failed * number // answers)
        trial.stable.add(share, stable_failed * (number + 1) // answers - stable_failed * number // answers)
    for _ in range(lists):
        trial.compared(agreement)

    assert find_abort_reason(trial, slowdown, LIMITS) == expected


def test_the_numbers_are_documented() -> None:
    """docs/operations.md states from when on a canary is judged, and by what margin."""
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")

    for stated in (f"{MIN_LISTS} lists", f"{MIN_DOCUMENTS} documents", f"{MARGIN:.0%}", f"last {WINDOW}"):
        assert stated in text
