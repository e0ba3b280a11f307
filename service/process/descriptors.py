"""How many connections the limit on open files leaves room for.

Knows the limit and what is open; does not know what comes in.
Invariant: beside all connections there is a reserve, for metrics and health and for the files of a reload.
"""

import resource
from pathlib import Path
from typing import Final

RESERVE: Final = 96
ADMIN_CONNECTIONS: Final = 32  # out of the reserve
_OPEN: Final = Path("/dev/fd")  # on Linux and macOS


def max_connections() -> float:
    """Return how many connections the public listener may hold, at least one; infinity without a limit on files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return float("inf")
    return max(1, soft - sum(1 for _ in _OPEN.iterdir()) - RESERVE)
