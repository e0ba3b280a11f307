"""Counts the CPUs that this process may really use.

Knows control groups and CPU affinity, which only Linux has; does not know what the CPUs are for.
Invariant: the answer is at least 1 and never more than the scheduler or the quota allows.
"""

import os
from collections.abc import Callable
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the whole CPUs of the affinity mask (elsewhere than on Linux, of the machine) and the tightest control group quota, v1 or v2.

    A fraction is rounded down: a thread too many would be throttled in the middle of a request.
    """
    allowed = allowed_cpus()
    limits = [float(len(allowed) if allowed else os.cpu_count() or 1)]
    for directory in _directories(groups, membership):
        limits += [quota for quota in (_quota_v2(directory), _quota_v1(directory)) if quota is not None]
    return max(1, int(min(limits)))


def cpus_to_pin(workers: int) -> tuple[int, ...]:
    """Return a CPU for each of so many workers if they are as many as the affinity mask has, else none.

    Where threads cannot be bound to CPUs, as on macOS, there are none either.

    Left to itself Linux now and then has two threads that compute for a millisecond take turns on one CPU while another
    idles. Where the mask has more CPUs than there may be workers, they are others' as well, and nobody takes any.
    """
    cpus = sorted(allowed_cpus())
    return tuple(cpus) if len(cpus) == workers else ()


def allowed_cpus() -> set[int]:
    """Return the affinity mask, which is empty where the system has none."""
    ask: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return ask(0) if ask else set()


def _directories(groups: Path, membership: Path) -> list[Path]:
    """The process's control groups and all groups above them."""
    found = []
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (groups,) if not controllers else (groups / "cpu", groups / controllers):
            inner = mount / path.lstrip("/")
            found += [inner, *(parent for parent in inner.parents if parent.is_relative_to(mount))]
    return found


def _quota_v2(directory: Path) -> float | None:
    quota, _, period = _read(directory / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _quota_v1(directory: Path) -> float | None:
    quota = _read(directory / "cpu.cfs_quota_us").strip()
    period = _read(directory / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
