"""What is measured and on what: a service of this repository on a free port, the machine, versions and commit.

Knows processes and the machine; does not know the load.
Invariant: a service that was started here is ended here, by its own process id, whatever happens in between.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from service.process.cpus import allowed_cpus

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.01
_PACKAGES: Final = ("onnxruntime", "tokenizers", "numpy", "uvicorn", "fastapi", "msgspec")


class ServiceError(Exception):
    """The service did not start."""


@dataclass(frozen=True, slots=True)
class Started:
    """A service that was started here; `ready_s` is from starting the process to its first word of being ready."""

    url: str
    pid: int
    ready_s: float

    def memory_mb(self) -> tuple[float, float]:
        """Return how much memory the process holds now and has held at most, in MB; without /proc, now twice."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        except OSError:
            told = subprocess.check_output(["/bin/ps", "-o", "rss=", "-p", str(self.pid)])  # noqa: S603 - ours
            return int(told) * 1_024 / 1e6, int(told) * 1_024 / 1e6
        fields = dict(line.split(":", 1) for line in status.splitlines())
        now, most = (int(fields[name].split()[0]) * 1_024 / 1e6 for name in ("VmRSS", "VmHWM"))
        return now, most


@contextmanager
def running_service() -> Iterator[str]:
    """Start `python -m service` on a free port and give its URL; SHELFRANK_* settings apply as usual."""
    with started_service() as service:
        yield service.url


@contextmanager
def started_service() -> Iterator[Started]:
    """Start `python -m service` as `running_service` does, and give what there is to know about its process."""
    command = [
        sys.executable,
        "-m",
        "service",
        "--port",
        "0",
        "--admin-port",
        "0",
        "--log-format",
        "json",
        "--log-level",
        "info",
    ]
    with tempfile.TemporaryFile() as log:
        began_s = time.monotonic()
        process = subprocess.Popen([*command, "--drain-delay-s", "0"], cwd=REPOSITORY, stderr=log)  # noqa: S603 - our own service
        try:
            url = _wait_for_url(process, log.fileno())
            _wait_until_ready(url)
            yield Started(url, process.pid, time.monotonic() - began_s)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            process.kill()
            process.wait()


def _wait_for_url(process: "subprocess.Popen[bytes]", log: int) -> str:
    """Read the log until the service says where it listens."""
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        exited = process.poll() is not None
        lines = os.pread(log, 1 << 20, 0).decode(errors="replace").splitlines()
        for line in lines:
            with suppress(ValueError):
                record = json.loads(line)
                if record["event"] == "listening":
                    return str(record["url"])
        if exited:
            raise ServiceError(lines[-1] if lines else f"the service ended with code {process.returncode}")
        time.sleep(_POLL_S)
    raise ServiceError(f"the service did not listen within {_START_TIMEOUT_S:.0f} s")


def _wait_until_ready(url: str) -> None:
    """Ask until the service says that requests should be sent."""
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=_START_TIMEOUT_S):  # noqa: S310 - our own service
            return
        time.sleep(_POLL_S)
    raise ServiceError(f"the service was not ready within {_START_TIMEOUT_S:.0f} s")


def describe_machine() -> dict[str, object]:
    """Return the CPU's name, the cores this process may use, their load before the run and the system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(allowed_cpus()) or os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on the request's path, as far as installed here."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def describe_commit() -> str:
    """Return the short commit, with "+" if tracked files differ from it; "unknown" outside a checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = [shutil.which("git") or "git", *arguments]
    output = subprocess.check_output(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, timeout=10)  # noqa: S603 - ours
    return output.decode().strip()


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
