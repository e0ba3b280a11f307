"""Tests of service/process/cpus.py."""

import json
import os
from pathlib import Path

import pytest

from service.process.cpus import cpus_to_pin, usable_cpus
from tests.service.support import ask, serving


@pytest.fixture(autouse=True)
def _sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler allows 16 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def _count(tmp_path: Path, membership: str, **files: str) -> int:
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    listing = tmp_path / "membership"
    listing.write_text(membership)
    return usable_cpus(tmp_path, listing)


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    """No control group, or one without a limit, leaves the affinity mask."""
    assert _count(tmp_path, "") == 16
    assert _count(tmp_path, "0::/\n", cpu_dot_max="max 100000\n") == 16


def test_a_v2_quota_counts(tmp_path: Path) -> None:
    """`cpu.max` of the group in version 2 limits the count; a fraction is rounded down."""
    assert _count(tmp_path, "0::/\n", cpu_dot_max="250000 100000\n") == 2


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    """A quota further up the tree limits the groups below it."""
    assert (
        _count(tmp_path, "0::/pod/box\n", pod__cpu_dot_max="300000 100000", pod__box__cpu_dot_max="max 1")
        == 3
    )


def test_a_v1_quota_counts(tmp_path: Path) -> None:
    """The cpu controller's quota of version 1 limits the count, also where the group is mounted as root."""
    files = {"cpu__cpu_dot_cfs_quota_us": "400000\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}

    assert _count(tmp_path, "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n", **files) == 4


def test_a_v1_group_without_a_quota_does_not(tmp_path: Path) -> None:
    """A quota of -1 is none."""
    files = {"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}

    assert _count(tmp_path, "5:cpu,cpuacct:/\n", **files) == 16


def test_there_is_always_one(tmp_path: Path) -> None:
    """A quota below one CPU still gives one worker."""
    assert _count(tmp_path, "0::/\n", cpu_dot_max="50000 100000\n") == 1


def test_workers_own_cpus_only_if_they_are_as_many() -> None:
    """Fewer workers than CPUs, or more, have none of their own: the others are somebody else's."""
    assert cpus_to_pin(16) == tuple(range(16))
    assert cpus_to_pin(2) == cpus_to_pin(17) == ()


def test_without_affinity_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no affinity mask, as on macOS, the machine's CPUs count and no worker has its own."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    assert _count(tmp_path, "") == 8
    assert cpus_to_pin(8) == ()


def test_the_service_starts_without_affinity(tiny_bundle: Path) -> None:
    """A system that lacks Linux's calls of the scheduler can start the service and be answered."""
    without = "import os, runpy; del os.sched_getaffinity, os.sched_setaffinity; "
    program = ("-c", without + "runpy.run_module('service', run_name='__main__')")
    with serving(tiny_bundle, program=program) as running:
        body = json.dumps({"query": "red shoes", "documents": ["red shoes"]})
        status, answer = ask(running.port, "POST", "/v1/rerank", body)
        assert (status, len(json.loads(answer)["results"])) == (200, 1)
