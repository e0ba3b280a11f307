"""Writes events to stderr, one line each, as JSON or as plain text.

Knows field names and values; does not know what they mean.
Invariant: no field holds text that a client sent; who writes an event never waits for whoever reads the log.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

LINES: Final = 4_096
"""Lines that wait for stderr, a megabyte or so; further ones are dropped and counted."""

FLUSH_S: Final = 1.0  # how long the end of the process waits for the lines that are left
_BATCH_LINES: Final = 256
_RETRY_S: Final = 0.05
_LOGGER: Final = logging.getLogger("shelfrank")
_STDERR: Final = 2
_LIBRARIES: Final = ("uvicorn", "opentelemetry")


def event(name: str, level: int = logging.INFO, **fields: str | float | bool | None) -> None:
    """Write one event with its fields."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, name, extra={"fields": fields})


def configure_logs(shape: str, level: str) -> None:
    """Send our events and our libraries' warnings to stderr in one shape, on a thread of their own."""
    handler = _Queued(LineWriter(lambda data: os.write(_STDERR, data)))
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
    return sum(handler.writer.dropped for handler in _LOGGER.handlers if isinstance(handler, _Queued))


class LineWriter:
    """Hands lines to `write` on a thread of its own; `write` says how many bytes it took, as `os.write` does.

    A file object would do the same under a lock, which a thread that hangs in a full pipe still holds when the
    process ends.
    """

    def __init__(self, write: Callable[[bytes], int], lines: int = LINES) -> None:
        self.dropped = 0
        self._write = write
        self._most = lines
        self._queue: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="logs", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue a line, or drop it if too many wait; this never waits itself."""
        if self._queue.qsize() < self._most:
            self._queue.put(line)
        else:
            self.dropped += 1

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until the lines so far are written, and say whether they are."""
        written = threading.Event()
        self._queue.put(written)
        return written.wait(timeout_s)

    def close(self) -> None:
        """Let the thread end when it has written what it can."""
        self._queue.put(None)

    def _loop(self) -> None:
        while (first := self._queue.get()) is not None:
            lines, flushed = [], []
            item: str | threading.Event | None = first
            while item is not None:
                if isinstance(item, str):
                    lines.append(item)
                else:
                    flushed.append(item)
                item = self._more(len(lines))
            self._write_all("".join(lines).encode(errors="backslashreplace"), len(lines))
            for waiting in flushed:
                waiting.set()

    def _more(self, lines: int) -> str | threading.Event | None:
        """Return what else waits, up to a batch; the end is left for the outer loop."""
        if lines >= _BATCH_LINES:
            return None
        try:
            item = self._queue.get_nowait()
        except Empty:
            return None
        if item is None:
            self._queue.put(None)
        return item

    def _write_all(self, data: bytes, lines: int) -> None:
        while data:
            try:
                data = data[self._write(data) :]
            except BlockingIOError:  # a pipe that somebody has made non-blocking, and that is full
                time.sleep(_RETRY_S)
            except OSError:  # nobody reads any more
                self.dropped += lines
                return


class _Queued(logging.Handler):
    """A handler that formats a record where it is made and writes it elsewhere."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self.writer.put(self.format(record) + "\n")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
        super().close()


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
