"""Tests of shelfrank/__main__.py: each verb is what its program does, and a missing extra is one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shelfrank.__main__ import VERBS

ROOT = Path(__file__).parents[2]
# an interpreter in which nothing can be imported but the standard library and what lies in the clone
BARE = (
    "-I",
    "-S",
    "-c",
    "import sys; sys.path.insert(0, '.'); import shelfrank.__main__ as door; sys.exit(door.main())",
)


def _run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_help_lists_every_verb_with_nothing_installed() -> None:
    """The help has a line for each verb and needs no library."""
    code, out, _ = _run(*BARE, "--help")

    assert code == 0
    assert [*VERBS] == re.findall(r"^  ([a-z]+) +\S.*$", out.partition("options:")[0], re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_its_extra_says_what_to_install(verb: str) -> None:
    """One line with the command, and exit code 2."""
    code, out, err = _run(*BARE, verb, "--help")
    extra = "serve" if verb == "serve" else "train"

    assert (2, "") == (code, out)
    assert re.fullmatch(rf"shelfrank {verb}: \w+ is not installed: pip install 'shelfrank\[{extra}\]'\n", err)


@pytest.mark.parametrize(
    ("verb", "program"),
    [
        ("serve", ("service",)),
        ("import", ("training", "import")),
        ("tune", ("training", "tune")),
        ("evaluate", ("training", "evaluate")),
        ("distil", ("training", "all")),
        ("label", ("training", "label")),
    ],
)
def test_a_verb_is_what_its_program_does(verb: str, program: tuple[str, ...]) -> None:
    """The same arguments give the same exit code, output and last word as the program's own command line."""
    arguments = ("--recipe", "absent.toml")
    ours, theirs = _run("-m", "shelfrank", verb, *arguments), _run("-m", *program, *arguments)

    assert ours[:2] == theirs[:2]
    assert ours[2].splitlines()[-1] == theirs[2].splitlines()[-1]


@pytest.mark.parametrize("arguments", [(), ("rank",)])
def test_no_verb_and_an_unknown_one_are_refused(arguments: tuple[str, ...]) -> None:
    """The line of usage and exit code 2."""
    code, _, err = _run("-m", "shelfrank", *arguments)

    assert code == 2
    assert err.startswith("usage: shelfrank VERB")


def test_a_fault_of_ours_is_not_told_as_a_missing_library(tmp_path: Path) -> None:
    """A module that is missing from a package that is there keeps its traceback."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    source = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from shelfrank.__main__ import main; main(['tune'])"
    code, _, err = _run("-c", source)

    assert code == 1
    assert "No module named 'training.__main__'" in err
