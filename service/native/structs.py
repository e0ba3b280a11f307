"""Holds the structs that ctypes mirrors to those that C was compiled with.

Knows sizes; does not know what is in a struct.
Invariant: a library whose structs have other sizes than ours is never called.
"""

import ctypes
from collections.abc import Callable, Sequence


def check_structs(sizes: Callable[..., object], structs: Sequence[type[ctypes.Structure]]) -> None:
    """Compare what `sizes` writes, a size in bytes for each struct, with ours; OSError if one differs."""
    in_c = (ctypes.c_int32 * len(structs))()
    sizes(in_c)
    ours = [ctypes.sizeof(struct) for struct in structs]
    if list(in_c) != ours:
        raise OSError(f"its structs have {list(in_c)} bytes, and ours {ours}")
