"""The report over a random student and invented studies whose figures are known."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pytest.importorskip("matplotlib", reason="the training environment is not installed")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")

import pyarrow.parquet as pq  # noqa: E402

from bundle.manifest import Calibration  # noqa: E402
from tests.training import support  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.data.lists import JudgedList, rankable, read_lists  # noqa: E402
from training.errors import RecipeError  # noqa: E402
from training.research import compare, plots, report  # noqa: E402

Make = Callable[..., Any]
NOISE = {"few-100": 1.0, "few-1000": 0.3, "perfect": 0.0}


def write_scores(folder: Path, lists: list[JudgedList], noise: float, seed: int, pairs: int) -> None:
    """Write what a study leaves of one student: gains with so much noise as scores."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = [
        {
            "dataset": j.dataset,
            "query_id": j.query_id,
            "product_id": p,
            "score": gain + noise * generator.normal(),
        }
        for j in lists
        for p, gain in zip(j.product_ids, j.gains, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
    (folder / "result.json").write_text(json.dumps({"metrics": {"pairs": pairs}}))


@pytest.fixture
def made(context: Make, tmp_path: Path) -> Path:
    """A report file beside a run with a student, a calibration, an evaluation and one study."""
    run = context("data").run
    root = Path(run.root)
    for stage in ("calibrate", "evaluate"):
        context(stage)
    calibration = Calibration(method="ordinal", slope=1.0, thresholds=(-1.0, 0.0, 1.0))
    (root / "calibrate" / "calibration.json").write_text(calibration.model_dump_json())
    rows = [
        {
            "dataset": "s validation",
            "metric": metric,
            "model": model,
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "lists": 9,
        }
        for metric in (*report.METRICS, "auc exact")
        for model in ("BM25", "teacher", "student int8 - BM25")
    ]
    (root / "evaluate" / "quality.json").write_text(json.dumps({"rows": rows}))
    lists = rankable(read_lists(root / "data" / "pairs.parquet", "validation"))
    variants = ""
    for name, noise in NOISE.items():
        variants += f"[[study.variants]]\nname = '{name}'\n"
        for seed in (1, 2):
            folder = tmp_path / "out" / name / f"seed-{seed}"
            write_scores(folder, lists, noise, seed, int(name.rpartition("-")[2]) if "-" in name else 50)
    (tmp_path / "study.toml").write_text(
        f"[study]\nrecipe = '{support.TINY}'\ndir = '{tmp_path / 'out'}'\nseeds = [1, 2]\n{variants}"
    )
    path = tmp_path / "report.toml"
    path.write_text(
        f"[report]\ntitle = 'Title <1>'\nrecipe = '{support.TINY}'\nhtml = '{tmp_path / 'page' / 'index.html'}'\n"
        f"markdown = '{tmp_path / 'report.md'}'\nfigures = '{tmp_path / 'figures'}'\nresamples = 100\n"
        f"[[report.shown]]\nstudy = '{tmp_path / 'study.toml'}'\ntitle = 'More pairs'\nkind = 'scaling'\n"
        "reference = 'few-100'\nlines = { students = 'few' }\n"
    )
    return path


def command(made: Path, root: Path) -> int:
    """Write the report as a user does."""
    given = [word for value in (f"run.dir={root}", support.SOURCE) for word in ("--set", value)]
    return main(["report", "--recipe", str(made), *given])


def test_the_page_stands_alone_and_the_tables_hold_no_product(
    made: Path, context: Make, tmp_path: Path
) -> None:
    """The page has its plots inside and asks for no other file; no title reaches the Markdown."""
    root = Path(context("data").run.root)

    assert command(made, root) == 0

    text = (tmp_path / "page" / "index.html").read_text()
    tables = (tmp_path / "report.md").read_text()
    assert text.count("<svg") == 3  # models, scaling, calibration
    assert not re.search(r"<(script|link|img)|(src|href)=\"(?!#)", text.replace('xlink:href="#', ""))
    assert "Title &lt;1&gt;" in text
    titles = {row["title"] for row in pq.read_table(root / "data" / "pairs.parquet").to_pylist()}
    assert any(title[:40] in text for title in titles)
    assert not any(title in tables for title in titles)
    shown = re.findall(r"!\[.*\]\((figures/.*\.svg)\)", tables)
    assert shown == ["figures/models-1.svg", "figures/more-pairs-1.svg", "figures/calibration-1.svg"]
    assert all((tmp_path / file).read_text().startswith("<svg") for file in shown)


def test_variants_are_compared_on_the_same_lists(made: Path, context: Make, tmp_path: Path) -> None:
    """A perfect student has NDCG 1 and an interval of differences above zero; the reference has no difference."""
    assert command(made, Path(context("data").run.root)) == 0
    lines = (tmp_path / "report.md").read_text().splitlines()
    few, more, perfect = (next(line for line in lines if line.startswith(f"| {name} |")) for name in NOISE)

    assert "1.000 [1.000, 1.000]" in perfect
    low, high = re.findall(r"\[([+-][\d.]+), ([+-][\d.]+)\]", perfect)[0]
    assert 0 < float(low) < float(high)
    assert few.rstrip(" |").endswith("]")
    assert "+" not in few
    assert "1,000" in more


def test_a_frontier_shows_every_student_and_is_asked_for_by_name(
    made: Path, context: Make, tmp_path: Path, capsys: Any
) -> None:
    """Without the file the command that makes it is told; with it each student has a line and a point."""
    root = Path(context("data").run.root)
    text = made.read_text().replace("kind = 'scaling'", "kind = 'frontier'")
    made.write_text(text)
    assert command(made, root) == 2
    assert "python -m training frontier --recipe" in capsys.readouterr().err
    cell = {"s": {"value": 0.5, "low": 0.4, "high": 0.6}}
    students = [
        {"student": name, "precision": precision, "bytes": 4_200_000, "ms": ms, "ndcg@10": cell}
        for name, ms in (("small", 3.0), ("large", 30.0))
        for precision in ("fp32", "int8")
    ]
    (tmp_path / "out" / "frontier.json").write_text(json.dumps({"list": 50, "students": students}))

    assert command(made, root) == 0

    tables = (tmp_path / "report.md").read_text()
    assert tables.count("| 4.2 |") == 4
    assert "| small | fp32 | 4.2 | 3.0 | 0.500 [0.400, 0.600] |" in tables
    assert "50 products" in (tmp_path / "page" / "index.html").read_text()


def test_seeds_are_averaged_list_by_list() -> None:
    """The mean over seeds of a list's metric is what enters the interval."""
    gains = np.array([1.0, 0.0])
    one = JudgedList("d", "q", "q", ("a", "b"), (), ("E", "I"), (3, 0), gains)
    right, wrong = [np.array([1.0, 0.0])], [np.array([0.0, 1.0])]

    values, sizes = compare.seed_means([one], compare.Trained("x", (right, wrong), 2.0), "pair accuracy")

    assert values.tolist() == [0.5]
    assert sizes.tolist() == [1.0]


def test_an_untrained_variant_is_named(made: Path, context: Make, tmp_path: Path, capsys: Any) -> None:
    """A study cut short gives one line with the command that finishes it, and no half report."""
    (tmp_path / "out" / "perfect" / "seed-2" / "result.json").unlink()

    assert command(made, Path(context("data").run.root)) == 2
    assert "python -m training study --recipe" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [("[report]\ntitle = 'x'", "recipe"), ("[study]", r"no \[report\]"), ("[", "cannot be read")],
)
def test_a_wrong_report_names_its_fault(tmp_path: Path, text: str, told: str) -> None:
    """A missing key, another kind of file and broken TOML are refused by name."""
    path = tmp_path / "report.toml"
    path.write_text(text)

    with pytest.raises(RecipeError, match=told):
        report.load_report(path)


def test_plots_are_the_same_every_time() -> None:
    """Equal numbers give equal SVG text, so a report made again changes nothing."""
    points = {"a": [(10.0, 0.5, 0.4, 0.6), (100.0, 0.6, 0.5, 0.7)]}

    first, second = (plots.scaling(points, {"teacher": 0.7}, "pairs", "NDCG") for _ in range(2))

    assert first == second
