"""How programs are found, set up, asked and judged; the applications' own requests, to a real service."""

import json
import sys
from pathlib import Path

import pytest

from clients import run
from clients.run import HOMES, Home, NotThere, agree, ask, main, set_up

FOLDER = Path(run.__file__).parent
RIGHT = [(1, 0.8), (0, 0.25)]
ROW = {"client": "x", "version": "1", "name": "base_url", "value": "{url}/v1"}


def _prints(text: str) -> Home:
    return Home("fake", sys.executable, [], [sys.executable, "-c", text], [])


def _says(told: dict[str, object]) -> Home:
    return _prints(f"print({json.dumps(told)!r})")


def test_every_program_is_asked() -> None:
    """Each program of the folder runs in one home, and each that a home names is there."""
    parts = {"__init__.py", "probe.py", "run.py", "table.py", "node/probe.mjs"}
    files = [*FOLDER.glob("*.py"), *FOLDER.glob("node/*.mjs"), *FOLDER.glob("java/*.java")]
    programs = [program for home in HOMES for program in home.programs]

    assert len(programs) == len(set(programs))
    assert {str(path.relative_to(FOLDER)) for path in files} - parts == set(programs)


@pytest.mark.parametrize(
    ("ranking", "same"),
    [
        ([(1, 0.8), (0, 0.25)], True),
        ([[1, 0.800001], [0, 0.249999]], True),
        ([(1, None), (0, None)], True),
        ([(0, None), (1, None)], False),
        ([(1, 0.8), (0, 0.2501)], False),
        ([(1, 0.8)], False),
    ],
)
def test_what_is_as_expected(ranking: list[tuple[int, float | None]], same: bool) -> None:  # noqa: FBT001
    """Order and scores count, the scores to the rounding of clients, and the order alone where there are none."""
    assert agree(ranking, RIGHT) is same


def test_a_row_that_ranks_as_expected() -> None:
    """The row says what is set, with a place in the service's stead."""
    (line,) = ask(_says(ROW | {"ranking": RIGHT}), "x.py", "http://127.0.0.1:1", RIGHT)

    assert (line.setting, line.verdict) == ('base_url="http://shelfrank:8000/v1"', "yes")


def test_a_row_that_fails_says_why() -> None:
    """A client's error is the reason, on one line that fits into a table and names no port."""
    told = ROW | {"error": "KeyError: a|b\nat http://127.0.0.1:1/v1"}
    (line,) = ask(_says(told), "x.py", "http://127.0.0.1:1", RIGHT)

    assert line.verdict == "no: KeyError: a/b at http://shelfrank:8000/v1"


def test_a_refusal_of_the_service_says_why() -> None:
    """Where a program hands the answer over as it came, a refusal is the reason."""
    told = ROW | {"answer": {"error": "blank_query", "message": "The query is blank."}}
    (line,) = ask(_says(told), "x.py", "http://127.0.0.1:1", RIGHT)

    assert line.verdict == "no: The query is blank."


def test_a_program_that_breaks_is_a_row() -> None:
    """A program that prints no row is told by its last words."""
    (line,) = ask(_prints("raise SystemExit('no such module')"), "x.py", "http://127.0.0.1:1", RIGHT)

    assert (line.program, line.verdict) == ("x.py", "no: no such module")


@pytest.mark.parametrize(
    ("needs", "command", "reason"),
    [
        ("no-such-tool", [], "there is no no-such-tool here"),
        (sys.executable, [sys.executable, "-c", "raise SystemExit('no wheel')"], "no wheel"),
        (
            sys.executable,
            [sys.executable, "-c", "raise SystemExit('x\\nERROR: no wheel\\nbye')"],
            "ERROR: no wheel",
        ),
    ],
)
def test_what_is_not_there(needs: str, command: list[str], reason: str) -> None:
    """A home that cannot be set up here says why."""
    with pytest.raises(NotThere, match=reason):
        set_up(Home("fake", needs, command, [], []))


def test_nothing_installed_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no client can be installed, that is said, and no row is lost."""
    homes = [Home(home.name, "no-such-tool", [], [], home.programs) for home in HOMES]
    monkeypatch.setattr(run, "HOMES", homes)

    assert main(["--check"]) == 0
    said = capsys.readouterr()
    assert "clients-makers: not asked here, there is no no-such-tool here" in said.err
    assert "0 of 0 rows rank as expected" in said.out


def test_the_requests_of_applications(capsys: pytest.CaptureFixture[str]) -> None:
    """What Open WebUI, Dify, RAGFlow, SiliconFlow and llama.cpp send is ranked at the plain path."""
    assert main(["--check", "--only", "plain"]) == 0
    assert "no:" not in capsys.readouterr().out
