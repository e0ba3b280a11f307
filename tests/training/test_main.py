"""The command line's verbs: which module answers, and what it is given."""

import sys
from types import ModuleType

import pytest

from training.__main__ import VERBS, main
from training.errors import DataError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A verb `weigh` whose module takes --kg and fails above 9."""
    module = ModuleType("weigh", "Weigh a thing.")

    def run(options: object) -> int:
        if options.kg > 9:  # type: ignore[attr-defined]
            raise DataError("too\nheavy")
        return options.kg  # type: ignore[attr-defined,no-any-return]

    module.arguments = lambda parser: parser.add_argument("--kg", type=int, required=True)  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "weigh", module)
    monkeypatch.setitem(VERBS, "weigh", "weigh")
    return module


@pytest.mark.usefixtures("verb")
def test_a_verb_has_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A verb's module says its options and returns the exit code; its errors are one line, as a stage's are."""
    assert main(["weigh", "--kg", "3"]) == 3
    assert main(["weigh", "--kg=10"]) == 2
    assert capsys.readouterr().err == "error: too heavy\n"


@pytest.mark.usefixtures("verb")
def test_a_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """`VERB --help` shows the verb's own options, and `--help` alone names the verbs."""
    for given in (["weigh", "--help"], ["--help"]):
        with pytest.raises(SystemExit):
            main(given)
    told = capsys.readouterr().out

    assert "Weigh a thing." in told
    assert "--kg" in told
    assert "evaluate, import, tune" in told


@pytest.mark.parametrize("option", [["--recipe", "none.toml"], ["--recipe=none.toml"]])
def test_a_stage_that_shares_its_name_with_a_verb_has_a_recipe(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`evaluate --recipe FILE` is the stage, as before there was a verb."""
    assert main(["evaluate", *option]) == 2
    assert capsys.readouterr().err.startswith("error: none.toml: cannot be read")
