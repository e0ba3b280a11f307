"""Tuning from the command line: a rule that can be learnt makes a bundle, noise makes none, a killed run goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import numpy as np

from bundle.store import read_bundle
from bundle.verify import verify_bundle
from tests.training.tune.shop import judged_file
from training.__main__ import main
from training.models.runtime import OrtSession
from training.tune.folds import Fold

FAST = ("--learning-rate", "1e-3", "--epochs", "2", "--threads", "1")


@pytest.fixture(scope="module")
def tuned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tune the small bundle to a shop with a rule; give the folder with bundle and report."""
    out = tmp_path_factory.mktemp("tuned")
    judged = judged_file(out / "judged.csv")
    assert main(["tune", "--from", str(tiny), "--judgments", str(judged), "--out", str(out), *FAST]) == 0
    return out


def test_a_rule_that_can_be_learnt_makes_a_bundle(tuned: Path) -> None:
    """The bundle verifies, ranks held-out queries better by more than noise, and says what it was made from."""
    bundle = read_bundle(tuned, "shop")
    verify_bundle(bundle, OrtSession)
    rows = {(row.model, row.metric): row for row in bundle.manifest.quality.rows}

    assert rows["after - before", "ndcg@10"].low > 0
    assert "tiny" in bundle.manifest.provenance.teacher
    card = bundle.files["card.md"].decode()
    assert "tuned to one shop's judgements" in card
    assert "is better than before" in card
    assert not list(tuned.glob(".*"))


def test_scores_keep_their_level(tuned: Path, tiny: Path) -> None:
    """Where grades are too few for classes of their own, the shop's products have the mean score they had before."""
    new, old = read_bundle(tuned, "shop"), read_bundle(tiny.parent, "tiny")
    assert new.manifest.reference is not None
    bins = np.array(new.manifest.reference.scores)
    centre = float((bins * (np.arange(len(bins)) + 0.5) / len(bins)).sum() / bins.sum())

    assert [label.name for label in new.manifest.labels] == [label.name for label in old.manifest.labels]
    assert 0.2 < centre < 0.9


def test_the_report_shows_queries(tuned: Path) -> None:
    """The page is for people: the verdict, BM25 beside it, and the queries that won most."""
    page = (tuned / "shop-report.html").read_text(encoding="utf-8")

    assert "is better than before" in page
    assert "BM25" in page
    assert "Queries that won most" in page


def test_noise_is_refused_and_nothing_written(
    tiny: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Grades that follow nothing make a report and no bundle, and the line names the figure and the way round."""
    judged = judged_file(tmp_path / "judged.csv", shuffled=True)

    line = refused("tune", "--from", str(tiny), "--judgments", str(judged), "--out", str(tmp_path), *FAST)

    assert "cannot be told from before" in line or "is worse than before" in line
    assert "--force" in line
    assert (tmp_path / "shop-report.html").is_file()
    assert not (tmp_path / "shop").exists()


def test_a_killed_run_goes_on(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished before a kill is not learnt again, and the report is the same as of an undisturbed run."""
    judged = judged_file(tmp_path / "judged.csv", queries=10, shuffled=True)
    options = ["--from", str(tiny), "--judgments", str(judged), *FAST]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main(["tune", *options, "--out", str(whole)])
    ran: list[str] = []
    keep = Fold.run

    def killed_after_one(fold: Fold, *rest: object) -> None:
        if ran:
            raise KeyboardInterrupt
        ran.append(fold.folder.name)
        keep(fold, *rest)

    monkeypatch.setattr(Fold, "run", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        main(["tune", *options, "--out", str(cut)])
    monkeypatch.setattr(Fold, "run", keep)
    main(["tune", *options, "--out", str(cut)])

    assert (whole / "shop-report.md").read_text() == (cut / "shop-report.md").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "No Name"], "cannot name a bundle"),
        (["--epochs", "0"], "--epochs: 1 or more"),
        (["--from", "nowhere/there"], "there"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: list[str], said: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """A wrong name, number or folder is said before anything is learnt."""
    judged = judged_file(tmp_path / "judged.csv")

    assert said in refused("tune", "--judgments", str(judged), "--out", str(tmp_path / "out"), *options)
    assert not list((tmp_path / "out").glob("*"))


def test_a_bundle_that_is_there_stays(tuned: Path, refused: Callable[..., str]) -> None:
    """Another bundle of that name is not replaced unless that is asked for, and nothing is learnt before that is said."""
    line = refused("tune", "--judgments", str(tuned / "judged.csv"), "--out", str(tuned))

    assert "shop exists: choose another --name, or --replace it" in line


def test_too_few_lists_are_refused(tiny: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    """Four lists leave nothing to hold out."""
    judged = judged_file(tmp_path / "judged.csv", queries=4)

    line = refused("tune", "--from", str(tiny), "--judgments", str(judged), "--out", str(tmp_path / "out"))

    assert "only 4 of 4 lists" in line


def test_clicks_teach_too(tiny: Path, tmp_path: Path) -> None:
    """Clicks on the house brand, beyond what the positions earn, teach what its grades would."""
    judged = judged_file(tmp_path / "judged.csv", queries=16).read_text(encoding="utf-8").splitlines()
    clicks = tmp_path / "clicks.csv"
    rows = ["query,product_id,title,brand,color,impressions,clicks,position"]
    for number, line in enumerate(judged[1:]):
        cells, _, grade = line.rpartition(",")
        clicked = 150 if grade == "3" else 10
        rows.append(f"{cells},500,{clicked},{number * 5 % 7 + 1}")
    clicks.write_text("\n".join(rows) + "\n", encoding="utf-8")

    code = main(
        [
            "tune",
            "--from",
            str(tiny),
            "--clicks",
            str(clicks),
            "--out",
            str(tmp_path),
            "--name",
            "clicked",
            *FAST,
        ]
    )

    assert code == 0
    assert "clicks, not judgements" in (tmp_path / "clicked" / "card.md").read_text(encoding="utf-8")
