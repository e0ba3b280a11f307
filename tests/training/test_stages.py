"""The stage runner: what is run again, what is not, and what a failure leaves behind."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training import folders, stages
from training.__main__ import main
from training.errors import StageError
from training.recipe import Recipe, load_recipe
from training.stages import Run

TINY = Path(__file__).parents[2] / "training" / "recipes" / "tiny.toml"


def tiny(root: Path, *overrides: str) -> Recipe:
    """The tiny recipe with its run below `root`."""
    small = ["data.pool.products_count=60", "data.pool.queries_count=10", "augment.max_queries=20"]
    return load_recipe(TINY, [f"run.dir={root}", *small, *overrides])


def finished(root: Path, stage: str) -> str:
    """When a stage's folder was written."""
    return str(json.loads((root / stage / "stage.json").read_text())["key"])


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    """The second call leaves the folder as it is; a changed number makes the stage and its readers stale."""
    run = Run(tiny(tmp_path))
    run.execute("data")
    run.execute("augment")
    before = (tmp_path / "augment").stat().st_mtime_ns
    run.execute("augment")
    changed = Run(tiny(tmp_path, "data.split.validation=0.5"))

    assert (tmp_path / "augment").stat().st_mtime_ns == before
    assert run.is_current("augment")
    assert not changed.is_current("data")
    assert not changed.is_current("augment")


def test_an_option_at_its_default_is_no_change(tmp_path: Path) -> None:
    """Saying what holds anyway keeps a stage current, and so does an option that a later version adds."""
    Run(tiny(tmp_path)).execute("data")

    assert Run(tiny(tmp_path, "data.split.salt=shelfrank")).is_current("data")
    assert not Run(tiny(tmp_path, "data.split.salt=other")).is_current("data")


def test_stages_of_a_shared_run_are_taken_if_they_are_just_those_wanted(tmp_path: Path) -> None:
    """A run that shares another's folder starts where the two part, and leaves the other as it is."""
    Run(tiny(tmp_path / "one")).execute("data")
    Run(tiny(tmp_path / "one")).execute("augment")
    shared = f"run.shares={tmp_path / 'one'}"
    same = Run(tiny(tmp_path / "two", shared))
    apart = Run(tiny(tmp_path / "three", shared, "augment.random=3"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}

    for stage in ("data", "augment"):
        same.execute(stage)
        apart.execute(stage)

    assert same.folder("augment") == tmp_path / "one" / "augment"
    assert not (tmp_path / "two").exists()
    assert apart.folder("data") == tmp_path / "one" / "data"
    assert apart.folder("augment") == tmp_path / "three" / "augment"
    assert {stage: entry["stage"] for stage, entry in manifest(tmp_path / "three").items()} == {
        "data": "data",
        "augment": "augment",
    }
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}


def manifest(root: Path) -> dict:
    """The stages of a run's manifest."""
    return json.loads((root / "run.json").read_text())["stages"]


def test_a_stage_without_its_inputs_says_what_to_run(tmp_path: Path) -> None:
    """A missing input is one clear error, not a traceback."""
    with pytest.raises(StageError, match="stage data is missing"):
        Run(tiny(tmp_path)).execute("augment")


def test_an_optional_stage_without_a_section_says_so(tmp_path: Path) -> None:
    """A stage that the recipe leaves out is one clear error, not a traceback."""
    with pytest.raises(StageError, match=r"no \[judge\] section"):
        Run(tiny(tmp_path)).execute("judge")


def test_sources_are_read_once_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last stage's key hashes the source files once, however many stages lie between."""
    calls = []
    monkeypatch.setattr("training.recipe.DataRecipe.fingerprint", lambda self: calls.append(self) or {})

    Run(tiny(tmp_path)).key("bundle")

    assert len(calls) == 1


def test_a_failing_stage_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a stage leaves neither its folder nor a partial one, and keeps the old one."""
    run = Run(tiny(tmp_path))
    run.execute("data")
    kept = finished(tmp_path, "data")
    changed = Run(tiny(tmp_path, "run.seed=9"))

    def broken(context: stages.Context) -> stages.Metrics:
        (context.out / "half.parquet").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("training.data.sources.run", broken)
    with pytest.raises(OSError, match="disk full"):
        changed.execute("data")

    assert finished(tmp_path, "data") == kept
    assert not list(tmp_path.glob(".data*"))


def test_run_manifest_names_commit_recipe_and_stages(tmp_path: Path) -> None:
    """run.json tells what a stage was made from and with which libraries."""
    recipe = tiny(tmp_path)
    Run(recipe).execute("data")
    told = json.loads((tmp_path / "run.json").read_text())

    assert told["recipe_sha256"] == recipe.sha256()
    assert told["stages"]["data"]["metrics"]["pairs"] > 0
    assert told["libraries"]["numpy"]
    assert [json.loads(line)["event"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        "stage"
    ]


def test_a_warning_is_the_last_line_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a stage warns of ends its output when it runs, and again when it is up to date."""
    monkeypatch.setattr("training.data.sources.run", lambda _: {"pairs": 1, "warning": "it is behind BM25"})
    for _ in range(2):
        Run(tiny(tmp_path)).execute("data")

        assert capsys.readouterr().err.endswith("\n\nWARNING: it is behind BM25\n")


def test_another_shipped_bundle_is_measured_anew(tmp_path: Path) -> None:
    """The evaluation's key follows the manifest of the shipped bundle, and no earlier stage's does."""
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    run = Run(tiny(tmp_path, f"evaluate.shipped={tmp_path}"))
    before = [run.key(stage) for stage in ("quantize", "evaluate", "bundle")]
    (tmp_path / "manifest.json").write_text("{ }", encoding="utf-8")
    after = [run.key(stage) for stage in ("quantize", "evaluate", "bundle")]

    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


def test_a_stage_does_not_begin_on_a_changed_file(tmp_path: Path) -> None:
    """A file cut after its stage finished stops the next one, which names it; run.json keeps to the figures."""
    run = Run(tiny(tmp_path))
    run.execute("data")
    pairs = tmp_path / "data" / "pairs.parquet"
    pairs.write_bytes(pairs.read_bytes()[:-1])
    folders._compared.cache_clear()  # what a process has looked at it does not look at again

    with pytest.raises(StageError, match=r"data/pairs\.parquet is not as its stage left it: remove"):
        Run(tiny(tmp_path)).execute("augment")
    assert "files" not in manifest(tmp_path)["data"]


def test_a_changed_source_file_makes_data_stale(tmp_path: Path) -> None:
    """The key follows the bytes of a source, not its name."""
    csv = tmp_path / "own.csv"
    csv.write_text("query,title,grade\na,b,3\n", encoding="utf-8")
    override = f"data.sources=[{{kind='table', name='own', path='{csv}'}}]"
    before = Run(tiny(tmp_path, override)).key("data")
    csv.write_text("query,title,grade\na,b,2\n", encoding="utf-8")

    assert Run(tiny(tmp_path, override)).key("data") != before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data", "--recipe", "gone.toml"], "gone.toml"),
        (["data", "--recipe", str(TINY), "--set", "run.seed=-1"], "run.seed"),
        (["data", "--recipe", str(TINY), "--weights", "model"], "--weights"),
    ],
)
def test_command_line_errors_are_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong call ends with code 2 and one line that names what was wrong."""
    assert main(arguments) == 2

    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_command_line_runs_a_stage(tmp_path: Path) -> None:
    """A stage runs from the command line and writes its folder."""
    assert main(["data", "--recipe", str(TINY), "--set", f"run.dir={tmp_path}"]) == 0

    assert (tmp_path / "data" / "pairs.parquet").is_file()
