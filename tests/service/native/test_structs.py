"""A library is not called whose structs are not ours."""

import ctypes

import pytest

from service.native import words
from service.native.structs import check_structs
from tests.service.native.support import needs_words


class Pair(ctypes.Structure):
    """A struct of eight bytes."""

    _fields_ = (("one", ctypes.c_int32), ("other", ctypes.c_int32))


def _telling(size: int) -> object:
    def write(sizes: ctypes.Array[ctypes.c_int32]) -> None:
        sizes[0] = size

    return write


def test_sizes_are_compared() -> None:
    """Equal sizes pass; another one is an error that names both."""
    check_structs(_telling(8), [Pair])

    with pytest.raises(OSError, match=r"\[12\] bytes, and ours \[8\]"):
        check_structs(_telling(12), [Pair])


@needs_words
def test_a_library_of_other_structs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A struct that has grown on one side alone is found when the library is loaded, and it is left alone."""
    monkeypatch.setattr(words, "_Rows", Pair)
    words._library.cache_clear()
    try:
        assert "structs" in words.why_not()
    finally:
        words._library.cache_clear()
