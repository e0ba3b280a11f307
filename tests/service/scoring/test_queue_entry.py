"""Tests of service/scoring/queue_entry.py."""

import pytest

from service.scoring.queue_entry import QueueEntry


def _entry(lengths: list[int]) -> QueueEntry[str]:
    entry = QueueEntry(
        "list", "model", 0, "default", 1e9, 0.5, lambda tokens, rows: 1e-3 * tokens + 1e-2 * rows
    )
    entry.set_rows(lengths)
    return entry


def test_rows_replace_the_expected_cost() -> None:
    """Once its rows are known an entry costs what their runs do."""
    entry = _entry([8, 8, 16])

    assert entry.cost_s == pytest.approx(1e-3 * 32 + 1e-2 * 3)
    assert (32, {8: [0, 1], 16: [2]}) == (entry.tokens, entry.waiting)


def test_what_is_taken_takes_its_share_of_the_cost() -> None:
    """Rows are taken once, each with the cost of its tokens, until nothing is left of either."""
    entry = _entry([8, 8, 16])
    whole_s = entry.cost_s
    first, first_s = entry.take(8, 1)
    second, second_s = entry.take(16, 1)
    last, last_s = entry.take(8, 5)

    assert ([0], [2], [1]) == (first, second, last)
    assert (first_s, second_s, last_s) == pytest.approx((whole_s / 4, whole_s / 2, whole_s / 4))
    assert (0, 0.0, False) == (entry.tokens, entry.cost_s, entry.has_work)


@pytest.mark.parametrize(("lengths", "runs"), [([], 1), ([8], 1), ([8, 24], 2), ([64] * 20, 5)])
def test_runs_are_estimated_by_lengths_and_tokens(lengths: list[int], runs: int) -> None:
    """There is a run for each length, and for so many tokens as are worth one."""
    assert runs == _entry(lengths).runs


def test_what_is_given_up_has_no_work() -> None:
    """An entry that is over holds no rows."""
    entry = _entry([8, 16])
    entry.discard_rows()

    assert not entry.has_work
