"""Tests of service/process/startup.py: real processes that are told to leave while they start, or start without stdio."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.service.support import ROOT, SERVICE, WAIT_S, ask

UNSHARE = ("unshare", "--pid", "--fork", "--map-root-user", "--kill-child")
IN_NATIVE_CODE = """
import hashlib
from service.process.startup import exit_on_signal, prepare_process
prepare_process()
with exit_on_signal():
    print("started", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def _may_unshare() -> bool:
    if shutil.which(UNSHARE[0]) is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


PREFIXES = [
    pytest.param((), id="plain"),
    pytest.param(
        UNSHARE,
        id="process 1",
        marks=pytest.mark.skipif(not _may_unshare(), reason="no PID namespace may be made here (issue 16)"),
    ),
]


@contextlib.contextmanager
def _started(prefix: Sequence[str], *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Start Python, give it and its process id as it is here, and end it."""
    popen = subprocess.Popen(
        [*prefix, sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        pid = popen.pid
        if prefix:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            _await(lambda: bool(children.read_text(encoding="ascii").split()))
            pid = int(children.read_text(encoding="ascii").split()[0])
        yield popen, pid
    finally:
        popen.kill()
        popen.wait(WAIT_S)
        assert popen.stdout is not None
        popen.stdout.close()


def _await(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def _hears(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    (caught,) = (
        line
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        if "SigCgt" in line
    )
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "at once"), (signal.SIGTERM, "later"), (signal.SIGINT, "later")]
)
def test_a_signal_ends_the_start(
    tiny_bundle: Path, tmp_path: Path, prefix: Sequence[str], number: int, moment: str
) -> None:
    """Told to leave while it starts, it ends at once, as process 1 too: while it imports, and while it loads."""
    keys = tmp_path / "keys"
    os.mkfifo(keys)  # nobody writes to it, so the start never ends
    flags = ["--models-root", str(tiny_bundle), "--bundle", "tiny", "--port", "0", "--admin-port", "0"]
    with _started(prefix, *SERVICE, *flags, "--api-keys-file", str(keys)) as (popen, pid):
        _await(lambda: _hears(pid, signal.SIGTERM))  # SIGINT has a handler of Python's before
        if moment == "later":
            _await(lambda: "libonnxruntime" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8"))
            time.sleep(0.5)  # so that it is about at the keys
        os.kill(pid, number)

        assert popen.wait(WAIT_S) == 128 + number


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_signal_is_heard_in_native_code(prefix: Sequence[str]) -> None:
    """What loads a model may not come back to Python for minutes; a signal ends the process all the same."""
    with _started(prefix, "-c", IN_NATIVE_CODE) as (popen, pid):
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"started\n"
        os.kill(pid, signal.SIGTERM)

        assert popen.wait(WAIT_S) == 128 + signal.SIGTERM


@pytest.mark.parametrize("closed", [(0, 1, 2), (0,), (2,)])
def test_no_socket_takes_the_place_of_closed_stdio(tiny_bundle: Path, closed: tuple[int, ...]) -> None:
    """Started without stdin, stdout or stderr it has /dev/null there, serves, and ends with 0."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--bundle tiny --port {port} --admin-port 0 --drain-delay-s 0 --workers 1"
    command = f'exec "$0" -m service --models-root "$1" {flags} ' + " ".join(f"{each}<&-" for each in closed)
    popen = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable, str(tiny_bundle)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        _await(lambda: _is_ready(port))
        held = [str(Path(f"/proc/{popen.pid}/fd/{number}").readlink()) for number in closed]
        popen.send_signal(signal.SIGTERM)
        code = popen.wait(WAIT_S)
    finally:
        popen.kill()
        popen.communicate()

    assert (code, held) == (0, ["/dev/null"] * len(closed))


@pytest.mark.parametrize("closed", ["", " 0<&- 1>&- 2>&-"])
def test_a_refusal_needs_no_stderr(closed: str) -> None:
    """A start that is refused ends with 3 whether or not anybody can be told."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m service --port none{closed}', sys.executable],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 3


def _is_ready(port: int) -> bool:
    try:
        return ask(port, "GET", "/readyz")[0] == 200
    except OSError:
        return False
