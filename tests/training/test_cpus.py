"""The CPUs that are free: those that may be used, less what others keep busy."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from training import cpus

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """Ask on a machine of so many CPUs, of which each is idle for the given share of the look."""

    def ask(*idle: float, **files: str) -> tuple[int, int]:
        stat, clock = tmp_path / "stat", [0.0]

        def write() -> None:
            lines = ["cpu  1 2 3 4 5 6 7 8 9 10"]
            for number, share in enumerate(idle):
                ticks = round(share * clock[0] * TICKS)
                lines.append(f"cpu{number} 9 9 9 {1_000 + ticks} 7 9 9 9 0 0")
            stat.write_text("\n".join([*lines, "ctxt 5"]), encoding="ascii")

        def sleep(seconds: float) -> None:
            clock[0] += seconds
            write()

        write()
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="ascii")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(idle))), raising=False)
        monkeypatch.setattr(time, "sleep", sleep)
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        return cpus.free_cpus(stat, tmp_path)

    return ask


@pytest.mark.parametrize(
    ("idle", "free"),
    [((1, 1), 2), ((1, 0), 1), ((0.9, 0.95), 2), ((0.5, 0.5), 1), ((0, 0), 1), ((0.5, 1, 0, 1), 2)],
)
def test_what_others_keep_busy_is_not_free(
    machine: Callable[..., tuple[int, int]], idle: tuple[float, ...], free: int
) -> None:
    """Whole CPUs that are idle, or nearly so, are free; there is always one."""
    assert machine(*idle) == (free, len(idle))


@pytest.mark.parametrize(
    ("asked", "variable", "threads", "said"),
    [
        (0, None, 1, "as many threads as CPUs are free, 1 of 2"),
        (1, None, 1, ""),
        (2, None, 2, "2 threads on 1 free of 2 CPUs: each step waits for the slowest of them"),
        (0, "1", 1, ""),
        (0, "2", 2, "2 threads on 1 free of 2 CPUs: each step waits for the slowest of them"),
        (1, "2", 1, ""),
    ],
)
def test_threads_are_the_free_cpus_or_their_cost_is_said(
    monkeypatch: pytest.MonkeyPatch, asked: int, variable: str | None, threads: int, said: str
) -> None:
    """A recipe's number stands, then the variable's, then what is free; more than that is told to cost time."""
    monkeypatch.setattr(cpus, "free_cpus", lambda: (1, 2))
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)

    assert cpus.threads_for(asked) == (threads, said)


def test_an_idle_machine_needs_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every CPU free there is a thread for each, and nothing to say."""
    monkeypatch.setattr(cpus, "free_cpus", lambda: (2, 2))
    monkeypatch.delenv("OMP_NUM_THREADS")

    assert cpus.threads_for(0) == (2, "")


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({"cpu_dot_max": "150000 100000\n"}, 1),
        ({"cpu_dot_max": "50000 100000\n"}, 1),
        ({"cpu_dot_max": "max 100000\n"}, 4),
        ({"cpu__cpu.cfs_quota_us": "300000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_the_quota_of_a_container_counts(
    machine: Callable[..., tuple[int, int]], files: dict[str, str], usable: int
) -> None:
    """Of four idle CPUs as many are used as the control group's quota pays for."""
    assert machine(1, 1, 1, 1, **files) == (usable, usable)


def test_without_counters_every_usable_cpu_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no such files all CPUs count."""
    monkeypatch.setattr(cpus, "LOOK_S", 0)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    count = os.cpu_count() or 1

    assert cpus.free_cpus(tmp_path / "absent", tmp_path) == (count, count)


def test_this_machine_has_one_at_least() -> None:
    """On the machine at hand the answer is between one and all of them."""
    free, usable = cpus.free_cpus()

    assert 1 <= free <= usable <= (os.cpu_count() or 1)
