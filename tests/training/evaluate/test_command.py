"""`python -m training evaluate` without a recipe: what it prints, what it writes, and what it says in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from tests.tiny import build_tiny
from tests.training.evaluate.judged import HEADER, rows, table
from training.__main__ import main


def test_one_bundle_is_compared_with_the_lists_own_order(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables, page, runs and qrels are written, and nothing else is left in the folder."""
    judgments, out = table(tmp_path / "shop.csv"), tmp_path / "out"

    code = main(
        ["evaluate", "--bundle", str(tiny_bundle / "tiny"), f"--judgments={judgments}", "--out", str(out)]
    )

    assert code == 0
    told = capsys.readouterr()
    name = next(path.stem for path in out.glob("run-tiny@*.txt")).removeprefix("run-")
    assert {path.name for path in out.iterdir()} == {
        "evaluation.md",
        "evaluation.html",
        "qrels.txt",
        "run-BM25.txt",
        "run-the-lists-own-order.txt",
        f"run-{name}.txt",
    }
    assert told.out.strip() == (out / "evaluation.md").read_text(encoding="utf-8").strip()
    assert f"- {name} is better than the lists' own order on these" in told.out
    assert "| calibration error | score error |" in told.out
    assert "warning" not in told.err
    assert "Queries that won most" in (out / "evaluation.html").read_text(encoding="utf-8")


def test_of_several_the_first_is_compared_with(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each further bundle has its difference from the first; one that has its name gets a number."""
    build_tiny(tmp_path, seed=11)
    both = [str(tiny_bundle / "tiny"), str(tmp_path / "tiny")]

    assert main(["evaluate", "--bundle", *both, "--judgments", str(table(tmp_path / "shop.csv"))]) == 0

    verdicts = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    assert len(verdicts) == 3
    assert " (2) " in verdicts[0]
    assert all("tiny@" in line.partition(" on these")[0] for line in verdicts)


def test_few_lists_are_warned_of(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer than twenty lists are measured with a warning of what that means, on the page too."""
    judgments = table(tmp_path / "shop.csv", rows(queries=5))

    assert main(["evaluate", "--bundle", str(tiny_bundle / "tiny"), "--judgments", str(judgments)]) == 0

    told = capsys.readouterr()
    assert told.err.startswith("warning: only 5 of 5 lists have 2 products and two grades")
    assert "Careful: only 5 of 5 lists" in told.out


def test_a_split_is_measured_alone(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --split the rows of that split are measured, and BM25 keeps the statistics of them all."""
    lines = [f"{line},{'test' if number < 60 else 'train'}" for number, line in enumerate(rows())]
    path = tmp_path / "shop.csv"
    path.write_text("\n".join([f"{HEADER},split", *lines]), encoding="utf-8")

    arguments = [
        "evaluate",
        "--bundle",
        str(tiny_bundle / "tiny"),
        "--judgments",
        str(path),
        "--split",
        "test",
    ]
    assert main(arguments) == 0

    assert "10 queries with 60 judged products, from shop.csv." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to evaluate: give --bundle DIR, --url URL"),
        (["--bundle", "none"], "there is no bundle none"),
        (["--url", "http://127.0.0.1:9"], "cannot be asked (Connection refused)"),
        (["--url", "x", "--column", "title"], "--column 'title': expected NAME=VALUE"),
        (["--url", "x", "--grade", "3=best"], "grades.3.target: Input should be a valid number"),
        (["--url", "x", "--shortest", "9"], "no list has 9 products and two grades"),
        (["--url", "x", "--split", "test"], "no such column"),
        (["--url", "x", "--key-file", "none"], "none: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """What is wrong with the options is said in one line with code 2, and nothing is written."""
    judgments, out = table(tmp_path / "shop.csv"), tmp_path / "out"

    assert told in refused("evaluate", *arguments, "--judgments", str(judgments), "--out", str(out))
    assert not out.exists()
