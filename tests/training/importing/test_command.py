"""Flags that are wrong are one line, before a model is looked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.errors import StageError
from training.importing.command import read_fields, read_precisions


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--name", "../up"), "cannot name a bundle"),
        (("--version", "A B"), "cannot name a bundle or a version"),
        (("--fields", "title,price"), "--fields title,price"),
        (("--fields", "title=0"), "--fields title=0"),
        (("--precision", "int4"), "--precision int4"),
        (("--separator", "|"), "--separator '|'"),
        (("--max-length", "-1"), "--max-length"),
        (("--products", "p.csv"), "--judgments names none"),
        (("--pairs", "/nowhere.csv"), "/nowhere.csv: cannot be read"),
    ],
)
def test_a_wrong_flag(
    refused: Callable[..., str], tmp_path: Path, options: tuple[str, str], told: str
) -> None:
    """The line quotes what is wrong, and nothing is written."""
    out = tmp_path / "out"

    assert told in refused("import", "./model", "--name", "mine", "--out", str(out), *options)
    assert not out.exists()


def test_judgements_without_a_second_grade(refused: Callable[..., str], tmp_path: Path) -> None:
    """A file on which nothing can be measured is refused as everywhere else."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,title,grade\nhose,garden hose,3\nhose,hose reel,3\n")

    assert "no second grade" in refused("import", "./model", "--name", "mine", "--pairs", str(pairs))


def test_fields_with_limits() -> None:
    """A number is the most tokens that are read of a field; 0 stands for all there is room for."""
    assert read_fields("title, brand=8") == (("title", 0), ("brand", 8))
    with pytest.raises(StageError):
        read_fields("title,title")


def test_the_first_precision_is_served() -> None:
    """They stay in the order in which they are given."""
    assert read_precisions("fp32, int8") == ("fp32", "int8")
