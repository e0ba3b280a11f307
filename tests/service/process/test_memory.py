"""Tests of service/process/memory.py."""

import os
from pathlib import Path

import pytest

from service.process.memory import _TRIM, trim_heap


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(_TRIM is None, reason="issue 4: other allocators keep what they keep")
def test_what_was_freed_in_pieces_goes_back() -> None:
    """Pieces below the size that the allocator maps alone stay with the process until they are given back."""
    pieces = [b"#" * 50_000 for _ in range(4_000)]
    kept = pieces[-1]  # at the upper end, so that the allocator alone cannot give back what lies below
    full = _rss_bytes()
    del pieces
    trim_heap()

    assert len(kept) == 50_000
    assert full - _rss_bytes() > 150_000_000
