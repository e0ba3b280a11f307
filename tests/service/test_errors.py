"""Tests of service/errors.py."""

import re

import pytest

from service.errors import Reason
from tests.service.support import ROOT

STATUSES = {*(400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431), *(500, 501, 503, 504, 507)}


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_a_reason_is_a_code_a_status_and_one_sentence(reason: Reason) -> None:
    """Codes are short snake case, statuses are errors, and messages are short single sentences."""
    assert re.fullmatch(r"[a-z][a-z_]{3,30}", reason.code)
    assert reason.status in STATUSES
    assert len(reason.message) <= 120
    assert reason.message.endswith(".")


def test_codes_are_distinct() -> None:
    """No two reasons share a code; Enum would silently make equal values aliases."""
    assert len({reason.code for reason in Reason}) == len(Reason) == len(Reason.__members__)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_every_reason_is_documented(reason: Reason) -> None:
    """docs/api.md has a row with the status, the code and the message of every reason."""
    lines = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines()

    assert f"| {reason.status} | `{reason.code}` | {reason.message} |" in lines
