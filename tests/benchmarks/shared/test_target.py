"""What the benchmarks say of the machine and of a process, on systems that are not Linux too."""

import os
from pathlib import Path

import pytest

from benchmarks.shared.target import Started, describe_commit, describe_machine, describe_versions


def test_the_machine_is_described_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no affinity mask, as on macOS, the machine's CPUs are the cores."""
    monkeypatch.delattr(os, "sched_getaffinity")

    assert describe_machine()["cores"] == os.cpu_count()


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="issue 16: without /proc, ps tells of memory")
def test_memory_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, ps says how much memory a process holds, within what it may have changed since."""
    service = Started("http://127.0.0.1", os.getpid(), 0.0)
    now_mb, most_mb = service.memory_mb()

    def missing(path: Path, **told: object) -> str:  # noqa: ARG001  as Path has it
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    told = service.memory_mb()

    assert 0 < now_mb <= most_mb
    assert told == pytest.approx((now_mb, now_mb), rel=0.2)


def test_machine_versions_and_commit_are_told() -> None:
    """Figures without a machine and a commit are worth nothing."""
    assert describe_machine()["cpu"]
    assert describe_versions()["python"]
    assert describe_commit()
