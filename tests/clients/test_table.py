"""The record of which clients are served: read, written, compared, and what api.md promises by it."""

import re
from dataclasses import replace
from pathlib import Path

from clients.table import HELD, PLACE, Line, lost, merged, read, write

ROOT = Path(__file__).parents[2]
ONE = Line("cohere Client", "cohere.py", "7.3.1", f'base_url="{PLACE}/cohere"', HELD)
TWO = Line("ai rerank (@ai-sdk/cohere)", "node/ai_sdk.mjs", "3.0.63", f'baseURL="{PLACE}/v2"', HELD)
NEVER = Line("other", "other.py", "", f"POST {PLACE}", "no: KeyError: 'results'")


def test_what_is_written_is_read() -> None:
    """The page gives back every row that it was made of."""
    assert read(write([ONE, TWO, NEVER])) == [ONE, TWO, NEVER]


def test_a_row_that_fails_now_is_lost() -> None:
    """A row that held and does not hold now is lost; another version of the client is the same row."""
    now = [replace(ONE, verdict="no: another order"), replace(TWO, version="4.0.0")]

    assert lost([ONE, TWO, NEVER], now, ()) == [ONE]


def test_a_row_that_nobody_asks_is_lost() -> None:
    """A row that held cannot just go away."""
    assert lost([ONE, TWO], [ONE], ()) == [TWO]


def test_what_could_not_be_asked_is_neither_lost_nor_forgotten() -> None:
    """Where a client cannot be installed, its row stays as it was."""
    assert lost([ONE, TWO], [ONE], {TWO.program}) == []
    assert merged([ONE, TWO], [replace(ONE, version="8.0.0")], {TWO.program}) == [
        replace(ONE, version="8.0.0"),
        TWO,
    ]


def test_every_base_of_the_first_table_is_one_that_holds() -> None:
    """What api.md tells a user to set is what `make clients` set when the client ranked as expected."""
    held = {
        line.setting for line in read((ROOT / "docs/clients.md").read_text(encoding="utf-8")) if line.held
    }
    section = (ROOT / "docs/api.md").read_text(encoding="utf-8").split("\n## ")[1]
    promised = {
        cell
        for row in re.findall(r"^\| .+? \| (.+) \|$", section, re.MULTILINE)
        for cell in re.findall(r"`([^`]+)`", row)
    }

    assert section.startswith("I use X, so I set Y")
    assert len(promised) > 10
    assert promised - held == set()


def test_every_row_of_the_record_holds() -> None:
    """A client that is not served is not written down as if it were: there is none at present."""
    record = read((ROOT / "docs/clients.md").read_text(encoding="utf-8"))

    assert len(record) > 40
    assert [line for line in record if not line.held] == []
