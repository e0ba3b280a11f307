"""Tests of service/batcher.py."""

from hypothesis import given
from hypothesis import strategies as st

from service.batcher import MAX_BUCKET_TOKENS, MIN_SPLIT_TOKENS, plan_buckets

LENGTHS = st.lists(st.integers(1, 64).map(lambda eighths: 8 * eighths), max_size=300)
WORKERS = st.integers(1, 16)


@given(LENGTHS, WORKERS)
def test_every_row_is_computed_once_at_its_own_length(lengths: list[int], workers: int) -> None:
    """Each row is in exactly one bucket, and that bucket has the row's own padded length."""
    placed = sorted((row, bucket.length) for bucket in plan_buckets(lengths, workers) for row in bucket.rows)

    assert list(enumerate(lengths)) == placed


@given(LENGTHS, WORKERS)
def test_buckets_are_bounded_and_biggest_first(lengths: list[int], workers: int) -> None:
    """No bucket exceeds the bound, nor a fair share by more than a row, and their sizes never rise."""
    buckets = plan_buckets(lengths, workers)
    share = max(MIN_SPLIT_TOKENS, -(-sum(lengths) // (2 * workers)))
    sizes = [bucket.tokens for bucket in buckets]

    assert all(bucket.tokens < share + bucket.length for bucket in buckets)
    assert all(size <= MAX_BUCKET_TOKENS for size in sizes)
    assert sorted(sizes, reverse=True) == sizes


def test_equal_rows_keep_all_workers_busy() -> None:
    """A list of equally long rows is cut into two parts for each worker, nearly equal in size."""
    buckets = plan_buckets([40] * 50, workers=2)

    assert [13, 13, 12, 12] == sorted((len(bucket.rows) for bucket in buckets), reverse=True)


def test_a_short_list_is_not_cut() -> None:
    """Below the smallest worthwhile bucket a list is one run, whatever the number of workers."""
    assert len(plan_buckets([24] * 10, workers=16)) == 1


def test_nothing_gives_nothing() -> None:
    """No rows give no buckets."""
    assert plan_buckets([], workers=2) == []
