"""Counts the CPUs that are free for a training: what may be used, less what others keep busy.

Knows Linux's control groups, affinity and counters, without which it counts all CPUs; does not know torch.
Invariant: the answer is at least 1 and at most what the system would let this process use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.3  # long beside the hundredth of a second that the counters tick in
NEARLY = 0.2  # of a CPU, which may be missing from one that counts as free
IDLE = slice(3, 5)  # idle and waiting for a disk, of the counters in a line of /proc/stat
QUOTAS = (  # of a container's own group: v2's quota and period in one file, v1's in two
    ("cpu.max",),
    ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
)


def threads_for(asked: int) -> tuple[int, str]:
    """Return how many threads are to compute, and what there is to say about it.

    `asked` stands if it is not 0, then OMP_NUM_THREADS, which whoever starts a training may set; then what is free.
    """
    asked = asked or int(told if (told := os.environ.get("OMP_NUM_THREADS", "")).isdigit() else 0)
    free, usable = free_cpus()
    if asked > free:
        return (
            asked,
            f"{asked} threads on {free} free of {usable} CPUs: each step waits for the slowest of them",
        )
    return (
        asked or free,
        "" if asked or free == usable else f"as many threads as CPUs are free, {free} of {usable}",
    )


def free_cpus(stat: Path = Path("/proc/stat"), groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Return the CPUs that are free now, and those that this process may use; looks for a moment.

    A step of training ends when its slowest thread does: one that shares its CPU holds up all the others, so that two
    threads can take several times as long as one.
    """
    allowed = _allowed()
    usable = max(1, int(min(len(allowed), _quota(groups))))
    before = _idle(stat)
    began_s = time.monotonic()
    time.sleep(LOOK_S)
    after = _idle(stat)
    if not allowed & before.keys() & after.keys():
        return usable, usable
    ticks = os.sysconf("SC_CLK_TCK") * (time.monotonic() - began_s)
    idle = sum(after[cpu] - before[cpu] for cpu in allowed & before.keys() & after.keys()) / ticks
    return max(1, min(usable, int(idle + NEARLY))), usable


def _allowed() -> set[int]:
    ask: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return ask(0) if ask else set(range(os.cpu_count() or 1))


def _idle(stat: Path) -> dict[int, int]:
    """Return the ticks that each CPU has been idle; none where the system does not count them."""
    lines = (line.split() for line in _read(stat).splitlines())
    return {
        int(name.removeprefix("cpu")): sum(map(int, counts[IDLE]))
        for name, *counts in lines
        if name.startswith("cpu") and name != "cpu"
    }


def _quota(groups: Path) -> float:
    """Return the CPUs of the control group's quota, infinite without one."""
    for files in QUOTAS:
        told = " ".join(_read(groups / file) for file in files).split()
        if len(told) == 2 and all(each.isdigit() for each in told) and int(told[1]):
            return int(told[0]) / int(told[1])
    return float("inf")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
