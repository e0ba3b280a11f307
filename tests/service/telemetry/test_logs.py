"""Tests of service/telemetry/logs.py."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from service.telemetry.logs import LINES, QueuedHandler, configure_logs, dropped_lines, event
from tests.service.support import ROOT, WAIT_S

SHORT_S = 0.2


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Put the loggers back as they were."""
    loggers = [logging.getLogger(name) for name in ("shelfrank", "uvicorn", "opentelemetry")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers = []
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in logger.handlers:
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that takes nothing more, as (read end, write end), with blocking writes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (4_096, 1):
        try:
            while True:
                os.write(writer, b"x" * size)
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(reader)  # wakes whoever still writes
    os.close(writer)


def _shown(capfd: pytest.CaptureFixture[str]) -> str:
    """What has reached stderr when all events so far are written."""
    logging.getLogger("shelfrank").handlers[0].flush()
    return capfd.readouterr().err


def put(lines: QueuedHandler, line: str) -> None:
    """Hand over a line as a logger does."""
    lines.handle(logging.makeLogRecord({"msg": line}))


def test_a_json_event_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """An event is one JSON object with its time, level, name and fields, whatever a value holds."""
    configure_logs("json", "info")
    event("ranked", id="a\nb", documents=3)
    (line,) = _shown(capfd).splitlines()
    told = json.loads(line)

    assert told.pop("time").endswith("Z")
    assert told == {"level": "info", "event": "ranked", "id": "a\nb", "documents": 3}


def test_a_plain_event_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """In plain form the fields follow the name as key=value."""
    configure_logs("plain", "info")
    event("ranked", logging.WARNING, id="a\nb", documents=3)
    (line,) = _shown(capfd).splitlines()

    assert line.partition(" ")[2] == 'warning ranked id="a\\nb" documents=3'


def test_less_severe_events_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Below the level nothing is written."""
    configure_logs("json", "warning")
    event("ranked")

    assert _shown(capfd) == ""


def test_a_librarys_traceback_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """A record of uvicorn's with a traceback, which may hold a client's text, is reduced to its message."""
    configure_logs("json", "info")
    try:
        raise ValueError("secret text")  # noqa: TRY301 - a record with a traceback is what is tested
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it failed")
    shown = _shown(capfd)

    assert "secret" not in shown
    assert json.loads(shown)["message"] == "it failed"


def test_a_full_pipe_stops_nobody(full_pipe: tuple[int, int]) -> None:
    """While nobody reads, lines are put in no time, kept up to a bound, and dropped and counted beyond it."""
    reader, writer = full_pipe
    lines = QueuedHandler(lambda data: os.write(writer, data), lines=100)
    began_s = time.monotonic()
    for number in range(2_000):
        put(lines, f"{number}")
    took_s = time.monotonic() - began_s

    assert took_s < 1.0
    assert 1_500 < lines.dropped < 1_901
    assert not lines.drain(SHORT_S)

    taken = b""
    while not taken.endswith(b"\n"):
        taken += os.read(reader, 65_536)
    assert lines.drain(WAIT_S)
    os.set_blocking(reader, False)
    while True:
        try:
            taken += os.read(reader, 65_536)
        except BlockingIOError:
            break
    kept = taken.lstrip(b"x").split()
    lines.close()

    numbers = [int(line) for line in kept]
    assert len(numbers) + lines.dropped == 2_000
    assert numbers[:100] == list(range(100))
    assert numbers == sorted(set(numbers))


def test_what_is_written_in_part_is_written_on() -> None:
    """A write that takes some of the bytes, or none for now, is gone on with until all are taken."""
    taken = bytearray()
    calls = 0

    def write(data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise BlockingIOError
        taken.extend(data[:3])
        return len(data[:3])

    lines = QueuedHandler(write)
    put(lines, "a line")
    put(lines, "another\ud800")

    assert lines.drain(WAIT_S)
    assert taken.decode() == "a line\nanother\\ud800\n"
    assert lines.dropped == 0
    lines.close()


def test_a_reader_that_has_gone_is_no_error() -> None:
    """Lines that nobody will read are dropped and counted, and the writer goes on."""

    def write(data: bytes) -> int:
        raise BrokenPipeError(len(data))

    lines = QueuedHandler(write)
    put(lines, "lost")
    assert lines.drain(WAIT_S)
    put(lines, "lost too")

    assert lines.drain(WAIT_S)
    assert lines.dropped == 2
    lines.close()


def test_the_end_comes_after_the_lines() -> None:
    """What was put before the writer is closed is written, then its thread ends."""
    gate, taken = threading.Event(), bytearray()

    def write(data: bytes) -> int:
        assert gate.wait(WAIT_S)
        taken.extend(data)
        return len(data)

    lines = QueuedHandler(write)
    for number in range(1_000):
        put(lines, f"{number}")
    lines.close()
    gate.set()
    lines.listener._thread.join(WAIT_S)

    assert not lines.listener._thread.is_alive()
    assert taken.decode().split() == [str(number) for number in range(1_000)]


def test_drops_are_counted_over_the_logs(capfd: pytest.CaptureFixture[str]) -> None:
    """Before anything is configured nothing is dropped, and later the count is that of the writer."""
    assert dropped_lines() == 0
    configure_logs("json", "info")
    event("ranked")

    assert dropped_lines() == 0
    logging.getLogger("shelfrank").handlers[0].listener.dropped = 3  # type: ignore[attr-defined]
    assert dropped_lines() == 3
    assert '"ranked"' in _shown(capfd)


_CHATTER = f"""
import sys, time
from service.telemetry.logs import configure_logs, dropped_lines, event
configure_logs("json", "info")
began_s = time.monotonic()
for number in range({2 * LINES}):
    event("ranked", id="x" * 32, documents=number)
print(time.monotonic() - began_s, dropped_lines(), flush=True)
"""


def test_a_process_whose_log_nobody_reads_works_and_ends() -> None:
    """With stderr a pipe that is never read, events take no time to speak of, and the process ends cleanly."""
    chatter = subprocess.Popen(
        [sys.executable, "-c", _CHATTER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert chatter.stdout is not None
        took_s, dropped = chatter.stdout.readline().split()
        code = chatter.wait(WAIT_S)
    finally:
        chatter.kill()
        chatter.communicate()

    assert float(took_s) < 5
    assert 0 < int(dropped) < 2 * LINES
    assert code == 0
