"""The figures of the shipped cards, measured again from bundle and judgements: whoever reads a card can check it."""

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from bundle.store import read_bundle
from training.data.lists import JudgedList, lists_of, rankable
from training.data.sources import read_sources
from training.evaluate.evaluate import STUDENT, by_dataset
from training.evaluate.systems import BM25, baselines, of_bundle
from training.measure.comparison import Comparison
from training.recipe import load_recipe

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
RECIPES = {"default": "volume-default.toml", "tiny": "default-tiny.toml"}
METRICS = {"ndcg@10": "NDCG@10", "pair accuracy": "pair accuracy"}
CLOSE = 2e-3  # int8 kernels of different processors round differently; on one, figures are the same to 1e-8


def validation(name: str) -> tuple[list[JudgedList], list[JudgedList]]:
    """All lists of a bundle's recipe, and those of its validation split that its card measures."""
    recipe = load_recipe(ROOT / "training" / "recipes" / RECIPES[name])
    rows = read_sources(recipe.data)
    held_out = lists_of(row for row in rows if row["split"] == "validation")
    return lists_of(rows), rankable(held_out, recipe.evaluate.min_pairs)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the judged data sets are not beside this checkout")
@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_card_is_reproduced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure on the card of the validation split, and BM25's, comes out again, data set by data set."""
    monkeypatch.chdir(ROOT)  # the recipes name data beside the checkout
    corpus, lists = validation(name)
    rows = read_bundle(ROOT / "models", name).manifest.quality.rows
    told = {(row.dataset, row.model, row.metric): row for row in rows}
    student, (bm25,) = of_bundle(ROOT / "models" / name, lists, 2), baselines(lists, corpus)

    calibrated = told.get(("all sets validation", STUDENT, "calibration error"))
    compared = 0
    for dataset, places in by_dataset(lists).items():
        systems = {
            name: [system.scores[place] for place in places]
            for name, system in ((STUDENT, student), (BM25, bm25))
        }
        both = Comparison([lists[place] for place in places], systems, resamples=2)
        for system in systems:
            for theirs, ours in METRICS.items():
                if row := told.get((f"{dataset} validation", system, theirs)):
                    compared += 1
                    found = both.figures(system)[ours]
                    assert (found.value, found.lists) == (pytest.approx(row.value, abs=CLOSE), row.lists)
    assert compared >= 8
    if calibrated:
        assert student.more["calibration error"].value == pytest.approx(calibrated.value, abs=CLOSE)
