"""Tests of service/health.py: it asks a real process, and reads what one was told in every way."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.health import settings_of
from tests.service.support import ROOT, WAIT_S, start

TOLD = {
    "by a flag": ("python -m service --port 8123", "SHELFRANK_PORT=8000", 8123),
    "by a flag in one word": ("python -m service --workers 2 --port=8123", "SHELFRANK_PORT=8000", 8123),
    "by a variable": ("python -m service", "PATH=/bin SHELFRANK_PORT=8123", 8123),
    "by nothing": ("python -m service", "PATH=/bin", 8000),
    "behind an init": ("/sbin/docker-init -- python -m service --port 8123", "SHELFRANK_PORT=8000", 8123),
    "beside another process 1": ("/sbin/init splash", "SHELFRANK_PORT=8123", 8123),
}


@pytest.mark.parametrize(("command", "variables", "port"), TOLD.values(), ids=TOLD)
def test_the_port_is_the_one_that_the_service_was_told(
    tmp_path: Path, command: str, variables: str, port: int
) -> None:
    """Flags win over variables and variables over the default, as in the service itself."""
    for name, words in (("cmdline", command), ("environ", variables)):
        (tmp_path / name).write_bytes(b"".join(word.encode() + b"\0" for word in words.split()))

    assert settings_of(tmp_path).port == port


def _ask_until(pid: int, is_so: Callable[[int], bool]) -> int:
    """Ask as the image's health check does, until the answer is as wanted."""
    told = [sys.executable, "-m", "service.health", str(pid)]
    code = -1
    while not is_so(code):
        code = subprocess.run(told, cwd=ROOT, capture_output=True, timeout=WAIT_S, check=False).returncode
    return code


def test_health_is_that_of_the_process(tiny_bundle: Path) -> None:
    """It is green once the service is ready at the port of its flag, red while it drains, and red when it has gone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    popen = start(tiny_bundle, "--host", "0", "--port", port, "--drain-delay-s", "300", "--workers", "1")
    try:
        codes = [_ask_until(popen.pid, lambda code: code == 0 or popen.poll() is not None)]
        popen.send_signal(signal.SIGTERM)
        codes.append(_ask_until(popen.pid, lambda code: code > 0))
    finally:
        popen.kill()
        popen.communicate()
    codes.append(_ask_until(popen.pid, lambda code: code >= 0))

    assert codes == [0, 1, 1]
