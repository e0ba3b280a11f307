"""Tests of service/http/inflate.py."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Reason, Refused
from service.http.inflate import inflate

WHOLE = gzip.compress(b'{"query": "red shoes"}' * 9)


def _reason(packed: bytes, max_bytes: int = 1_000) -> Reason:
    with pytest.raises(Refused) as caught:
        inflate(packed, max_bytes)
    return caught.value.reason


@given(st.binary(max_size=300), st.integers(0, 9))
def test_what_was_packed_comes_back(body: bytes, level: int) -> None:
    """A body that fits the limit to the byte comes back, one byte more does not."""
    packed = gzip.compress(body, level)

    assert inflate(packed, len(body)) == body
    if body:
        assert _reason(packed, len(body) - 1) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_broken_gzip_is_refused(at: int) -> None:
    """Cut anywhere, or with a byte of its checksum or of its data turned, it is no body."""
    assert _reason(WHOLE[:at]) is Reason.MALFORMED_GZIP
    if at >= 10:  # before that stand a time and the system's name, which mean nothing
        turned = WHOLE[:at] + bytes([WHOLE[at] ^ 0xFF]) + WHOLE[at + 1 :]
        assert _reason(turned) is Reason.MALFORMED_GZIP


@pytest.mark.parametrize("packed", [b"", b"{}", zlib.compress(b"{}"), WHOLE + b"x", WHOLE * 2])
def test_anything_else_is_refused(packed: bytes) -> None:
    """Nothing, plain JSON, another coding, and a member that is not alone are no gzip that we take."""
    assert _reason(packed) is Reason.MALFORMED_GZIP


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    """64 MiB of blanks in 64 KiB are refused after the limit's worth of them."""
    bomb = gzip.compress(b" " * 2**26)
    tracemalloc.start()
    try:
        assert _reason(bomb, 2**20) is Reason.BODY_TOO_LARGE
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2**22
