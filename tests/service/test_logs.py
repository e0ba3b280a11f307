"""Tests of service/logs.py."""

import json
import logging
from collections.abc import Iterator

import pytest

from service.logs import configure_logs, event


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Put the loggers back as they were."""
    loggers = [logging.getLogger(name) for name in ("shelfrank", "uvicorn")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_json_event_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An event is one JSON object with its time, level, name and fields, whatever a value holds."""
    configure_logs("json", "info")
    event("ranked", id="a\nb", documents=3)
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)

    assert told.pop("time").endswith("Z")
    assert told == {"level": "info", "event": "ranked", "id": "a\nb", "documents": 3}


def test_a_plain_event_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """In plain form the fields follow the name as key=value."""
    configure_logs("plain", "info")
    event("ranked", logging.WARNING, id="a\nb", documents=3)
    (line,) = capsys.readouterr().err.splitlines()

    assert line.partition(" ")[2] == 'warning ranked id="a\\nb" documents=3'


def test_less_severe_events_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the level nothing is written."""
    configure_logs("json", "warning")
    event("ranked")

    assert capsys.readouterr().err == ""


def test_a_librarys_traceback_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A record of uvicorn's with a traceback, which may hold a client's text, is reduced to its message."""
    configure_logs("json", "info")
    try:
        raise ValueError("secret text")  # noqa: TRY301 - a record with a traceback is what is tested
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it failed")
    shown = capsys.readouterr().err

    assert "secret" not in shown
    assert json.loads(shown)["message"] == "it failed"
