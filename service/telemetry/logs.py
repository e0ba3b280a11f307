"""Writes events to stderr, one line each, as JSON or as plain text.

Knows field names and values; does not know what they mean.
Invariant: no field holds text that a client sent; who writes an event never waits for whoever reads the log.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Any, Final

LINES: Final = 4_096
"""Lines that wait for stderr, a megabyte or so; further ones are dropped and counted."""

FLUSH_S: Final = 1.0  # how long the end of the process waits for the lines that are left
_RETRY_S: Final = 0.05
_LOGGER: Final = logging.getLogger("shelfrank")
_STDERR: Final = 2
_LIBRARIES: Final = ("uvicorn", "opentelemetry")

Write = Callable[[bytes], int]


def event(name: str, level: int = logging.INFO, **fields: str | float | bool | None) -> None:
    """Write one event with its fields."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, name, extra={"fields": fields})


def configure_logs(shape: str, level: str) -> None:
    """Send our events and our libraries' warnings to stderr in one shape, on a thread of their own."""
    handler = QueuedHandler(lambda data: os.write(_STDERR, data))
    handler.setFormatter(_Json() if shape == "json" else _Plain())
    for name in ("shelfrank", *_LIBRARIES):
        logger = logging.getLogger(name)
        for earlier in logger.handlers:
            earlier.close()
        logger.handlers = [handler]
        logger.setLevel("WARNING" if name in _LIBRARIES else level.upper())
        logger.propagate = False


def dropped_lines() -> int:
    """Return how many lines were dropped since the logs were configured."""
    return sum(handler.dropped for handler in _LOGGER.handlers if isinstance(handler, QueuedHandler))


class QueuedHandler(QueueHandler):
    """Queues lines for a `Writer`, or drops and counts them if too many wait; it never waits itself."""

    def __init__(self, write: Write, lines: int = LINES) -> None:
        self._waiting: Queue[Any] = Queue(lines)  # what typeshed makes of `queue` cannot be waited for
        super().__init__(self._waiting)
        self.listener = Writer(self._waiting, write)
        self.listener.start()
        self._missed = 0

    @property
    def dropped(self) -> int:
        """How many lines were dropped."""
        return self._missed + self.listener.dropped

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  as logging calls it
        """Count a line that could not be queued."""
        self._missed += 1

    def drain(self, timeout_s: float) -> bool:
        """Wait until the lines so far are written, and say whether they are."""
        waiting = self._waiting
        with waiting.all_tasks_done:
            return waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, timeout_s)

    def flush(self) -> None:
        """Wait for the lines that are left, but not for long."""
        self.drain(FLUSH_S)

    def close(self) -> None:
        """Let the thread end when it has written what it can."""
        with contextlib.suppress(Full):
            self.listener.enqueue_sentinel()
        super().close()


class Writer(QueueListener):
    """Hands queued lines to `write` on a thread of its own; `write` says how many bytes it took, as `os.write` does.

    A handler would do the same under a lock, which a thread that hangs in a full pipe still holds when the process
    ends.
    """

    def __init__(self, queue: Queue[Any], write: Write) -> None:
        super().__init__(queue)
        self.dropped = 0
        self._write = write

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line, which `QueueHandler` has made the record's message."""
        data = f"{record.msg}\n".encode(errors="backslashreplace")
        while data:
            try:
                data = data[self._write(data) :]
            except BlockingIOError:  # a pipe that somebody has made non-blocking, and that is full
                time.sleep(_RETRY_S)
            except OSError:  # nobody reads any more
                self.dropped += 1
                return


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of an event, or the bare message of another library's record, never its traceback."""
    fields: dict[str, object] | None = getattr(record, "fields", None)
    if fields is not None:
        return {"event": record.msg, **fields}
    return {"event": "library", "logger": record.name, "message": record.getMessage()}


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"time": _stamp(record), "level": record.levelname.lower(), **_fields(record)})


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        name = fields.pop("event")
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in fields.items())
        return f"{_stamp(record)} {record.levelname.lower()} {name} {pairs}".rstrip()
