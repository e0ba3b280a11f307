"""A study on a tiny run: what is trained, what is kept, what is refused."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from tests.training import support  # noqa: E402
from training import distil, study  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.distil import some_queries  # noqa: E402
from training.recipe import RecipeError, load_recipe  # noqa: E402
from training.report import load_report  # noqa: E402
from training.stages import Run  # noqa: E402

STUDIES = Path(study.__file__).parent / "studies"
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


def test_queries_are_drawn_whole_and_by_the_seed() -> None:
    """A smaller share of the labels keeps whole queries, the same ones for the same seed."""
    rows = [{"query_id": str(query), "product_id": str(i)} for query in range(20) for i in range(3)]

    kept = some_queries(rows, 5, seed=1)

    assert len(kept) == 15
    assert kept == some_queries(rows, 5, seed=1) != some_queries(rows, 5, seed=2)
    assert some_queries(rows, 0, seed=1) == some_queries(rows, 20, seed=1) == rows


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
