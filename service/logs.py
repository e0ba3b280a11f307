"""Writes events to stderr, one line each, as JSON or as plain text.

Knows field names and values; does not know what they mean.
Invariant: no field holds text that a client sent; ids, counts and durations only.
"""

import json
import logging
import time
from typing import Final

_LOGGER: Final = logging.getLogger("shelfrank")


def event(name: str, level: int = logging.INFO, **fields: str | float | bool | None) -> None:
    """Write one event with its fields."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, name, extra={"fields": fields})


def configure_logs(shape: str, level: str) -> None:
    """Send our events and uvicorn's warnings to stderr in one shape."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if shape == "json" else _Plain())
    for name, least in (("shelfrank", level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least)
        logger.propagate = False


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
