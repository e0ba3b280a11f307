"""Gives memory that the process has freed back to the system.

Knows glibc; does not know what was freed.
Invariant: it changes nothing but what the system counts as ours, and nothing at all where there is no glibc.

A bundle is loaded on one thread and let go on another, and what glibc's allocator gets back it keeps in pieces: six
reloads of the default bundle left 360 MB behind, which nobody held.
"""

import ctypes
from typing import Final

_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim_heap() -> None:
    """Give back all free pages; takes 10 ms after a model was let go, so call it off the event loop."""
    if _TRIM is not None:
        _TRIM(0)
