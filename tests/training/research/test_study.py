"""A study on a tiny run: what is trained, what is kept, what is refused."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from tests.training import support  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.errors import RecipeError, StageError  # noqa: E402
from training.recipe import load_recipe  # noqa: E402
from training.research import study  # noqa: E402
from training.research.report import load_report  # noqa: E402
from training.stages import Context, Metrics, Run  # noqa: E402
from training.student import distil  # noqa: E402

STUDIES = Path(__file__).parents[3] / "training" / "studies"
SMALL = ["teacher.epochs=1", "distil.epochs=1", "augment.max_queries=30", support.SOURCE]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe up to its labels."""
    root = tmp_path_factory.mktemp("labelled")
    run = Run(load_recipe(support.TINY, [f"run.dir={root}", *SMALL]))
    for stage in ("data", "augment", "teacher", "label"):
        run.execute(stage)
    return root


def write(path: Path, variants: str, seeds: str = "[1, 2]") -> Path:
    """Write a study file beside its results."""
    text = f"[study]\nrecipe = '{support.TINY}'\ndir = '{path.parent / 'out'}'\nseeds = {seeds}\n{variants}"
    path.write_text(text)
    return path


def command(path: Path, run: Path) -> int:
    """Run the study as a user does."""
    given = ["--set", f"run.dir={run}"] + [part for value in SMALL for part in ("--set", value)]
    return main(["study", "--recipe", str(path), *given])


TWO = """
[[study.variants]]
name = "plain"
[[study.variants]]
name = "labels"
set = ["distil.learn_from=labels", "distil.loss=pointwise_bce"]
"""


def test_every_variant_is_trained_with_every_seed_and_once(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four students, each with the scores of all held-out lists and no weights left; a second call trains none."""
    path = write(tmp_path / "study.toml", TWO)

    assert command(path, labelled) == 0
    results = sorted((tmp_path / "out").glob("*/seed-*/result.json"))
    tables = [pq.read_table(result.with_name("scores.parquet")) for result in results]

    assert [f"{r.parent.parent.name} {r.parent.name}" for r in results] == [
        f"{name} seed-{seed}" for name in ("labels", "plain") for seed in (1, 2)
    ]
    assert {len(table) for table in tables} == {len(tables[0])}
    assert set(tables[0]["split"].to_pylist()) == {"validation", "test"}
    assert len({tuple(table["score"].to_pylist()) for table in tables}) == 4
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    assert json.loads(results[0].read_text())["set"][0] == "distil.learn_from=labels"

    monkeypatch.setattr(distil, "run", lambda _: pytest.fail("a finished student was trained again"))
    assert command(path, labelled) == 0


def test_a_variant_that_fails_leaves_no_half_folder(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that stops in the middle of a training has that student's folder not at all."""

    def broken(context: Context) -> Metrics:
        (context.out / "half.safetensors").write_bytes(b"half")
        raise StageError("the disk is full")

    monkeypatch.setattr(distil, "run", broken)

    assert command(write(tmp_path / "study.toml", TWO), labelled) == 2
    assert list((tmp_path / "out" / "plain").iterdir()) == []


def test_a_study_of_teachers_trains_teachers(labelled: Path, tmp_path: Path) -> None:
    """Each variant is fine-tuned by the same pairs, has the scores of all held-out lists, and leaves no weights."""
    variants = """stage = 'teacher'
[[study.variants]]
name = "soft"
[[study.variants]]
name = "hard"
set = ["teacher.targets=hard"]
"""
    path = write(tmp_path / "study.toml", variants, seeds="[1]")

    assert command(path, labelled) == 0
    folders = [tmp_path / "out" / name / "seed-1" for name in ("soft", "hard")]
    pairs = [json.loads((folder / "result.json").read_text())["metrics"]["pairs"] for folder in folders]
    tables = [pq.read_table(folder / "scores.parquet") for folder in folders]

    assert pairs[0] == pairs[1] > 0
    assert tables[0]["product_id"] == tables[1]["product_id"]
    assert set(tables[0]["split"].to_pylist()) == {"validation", "test"}
    assert tables[0]["score"] != tables[1]["score"]
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_a_study_varies_what_it_trains_alone(tmp_path: Path) -> None:
    """A study of teachers changes no student, and says which sections it may change."""
    variants = "stage = 'teacher'\n[[study.variants]]\nname = 'x'\nset = ['distil.epochs=1']\n"
    with pytest.raises(RecipeError, match="only teacher may vary"):
        study.load_study(write(tmp_path / "study.toml", variants))


def test_a_study_needs_its_labels(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the base run's labels one line says which stage to run."""
    run = Path(shutil.copytree(labelled, tmp_path / "run"))
    shutil.rmtree(run / "label")

    assert command(write(tmp_path / "study.toml", TWO), run) == 2
    assert "stage label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ("[[study.variants]]\nname='a'\nset=['teacher.epochs=9']", "only distil and text may vary"),
        ("[[study.variants]]\nname='a'\n[[study.variants]]\nname='a'", "same name"),
        ("[[study.variants]]\nname='A b'", "variants.0.name"),
        ("variants = []", "variants"),
        ("[[study", "cannot be read"),
    ],
)
def test_a_wrong_study_names_its_fault(tmp_path: Path, variants: str, told: str) -> None:
    """A change of the labels themselves, a name twice or an empty list is refused before anything is trained."""
    with pytest.raises(RecipeError, match=told):
        study.load_study(write(tmp_path / "study.toml", variants))


def test_what_all_variants_change_is_held_to_the_same_rule(tmp_path: Path) -> None:
    """A change of the labels is refused too where it stands for every variant."""
    path = write(tmp_path / "study.toml", "set = ['teacher.epochs=9']\n[[study.variants]]\nname='a'")

    with pytest.raises(RecipeError, match="only distil and text may vary"):
        study.load_study(path)


def test_a_file_without_a_study_is_refused(tmp_path: Path) -> None:
    """A recipe given in place of a study is told apart."""
    with pytest.raises(RecipeError, match=r"no \[study\] table"):
        study.load_study(support.TINY)
    with pytest.raises(RecipeError, match="cannot be read"):
        study.load_study(tmp_path / "absent.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("[!r]*.toml")), ids=lambda path: path.stem)
def test_the_committed_studies_are_sound(path: Path) -> None:
    """Every variant of every study gives a recipe that loads."""
    told = study.load_study(path)

    for variant in told.variants:
        load_recipe(STUDIES.parents[1] / told.recipe, [*told.set, *variant.set])


def test_the_committed_report_shows_committed_studies() -> None:
    """The report loads and names studies that are there."""
    told = load_report(STUDIES / "report.toml")

    assert all((STUDIES.parents[1] / shown.study).is_file() for shown in told.shown)


KEPT = """keep_students = true
[[study.variants]]
name = "narrow"
set = ["distil.fresh.hidden=16"]
"""


def test_the_frontier_measures_every_kept_student_in_every_precision(labelled: Path, tmp_path: Path) -> None:
    """The base run's student and the study's, fp32 and int8: bytes, milliseconds and NDCG@10 of each data set."""
    root = tmp_path / "run"
    shutil.copytree(labelled, root)
    Run(load_recipe(support.TINY, [f"run.dir={root}", *SMALL])).execute("distil")
    path = write(tmp_path / "study.toml", KEPT, "[1]")
    assert command(path, root) == 0
    given = ["--set", f"run.dir={root}"] + [part for value in SMALL for part in ("--set", value)]

    assert main(["frontier", "--recipe", str(path), *given]) == 0

    told = json.loads((tmp_path / "out" / "frontier.json").read_text())["students"]
    found = {(each["student"], each["precision"]): each for each in told}
    assert list(found) == [(s, p) for s in ("default", "narrow") for p in ("fp32", "int8")]
    assert found["narrow", "fp32"]["bytes"] < found["default", "fp32"]["bytes"]
    assert found["default", "int8"]["bytes"] < found["default", "fp32"]["bytes"]
    for each in told:
        assert each["ms"] > 0
        assert [
            0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1 for cell in each["ndcg@10"].values()
        ] == [True]


def test_the_frontier_needs_kept_students(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study that threw its students away is one clear error."""
    root = tmp_path / "run"
    shutil.copytree(labelled, root)
    Run(load_recipe(support.TINY, [f"run.dir={root}", *SMALL])).execute("distil")
    path = write(tmp_path / "study.toml", TWO, "[1]")
    given = ["--set", f"run.dir={root}"] + [part for value in SMALL for part in ("--set", value)]

    assert main(["frontier", "--recipe", str(path), *given]) == 2
    assert "keep_students = true" in capsys.readouterr().err
