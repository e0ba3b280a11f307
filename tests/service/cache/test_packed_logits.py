"""Tests of service/cache/packed_logits.py."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.cache.packed_logits import pack_usage, unpack_usage

PAIRS = st.lists(
    st.tuples(
        st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 2**27 - 1), st.booleans()
    ),
    max_size=20,
)


@given(PAIRS)
def test_rounded_it_is_the_logit_bit_for_bit(pairs: list[tuple[float, int, bool]]) -> None:
    """Whatever tokens stand in it, a float32 of it is the logit, the smallest and minus zero included."""
    logits = np.array([logit for logit, _, _ in pairs], np.float32)
    known = pack_usage(logits, [tokens for _, tokens, _ in pairs], bytes(cut for _, _, cut in pairs))

    assert logits.tobytes() == known.astype(np.float32).tobytes()


@given(PAIRS)
def test_tokens_and_cuts_come_back(pairs: list[tuple[float, int, bool]]) -> None:
    """The sums are those of what was put in."""
    logits = np.array([logit for logit, _, _ in pairs], np.float32)
    known = pack_usage(logits, [tokens for _, tokens, _ in pairs], bytes(cut for _, _, cut in pairs))

    expected = sum(tokens for _, tokens, _ in pairs), sum(cut for _, _, cut in pairs)
    assert expected == unpack_usage(known.tolist())


def test_what_is_not_finite_stays_so() -> None:
    """A logit that is none, or without bounds, is still none that could be remembered."""
    known = pack_usage(np.array([np.nan, np.inf, -np.inf], np.float32), [1, 2, 3], b"\0\0\1")

    assert not np.isfinite(known).any()
