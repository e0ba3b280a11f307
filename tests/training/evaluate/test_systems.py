"""What is put side by side: scores of the served graph, floors, and calibration where it means something."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from bundle.errors import BundleError
from bundle.store import read_bundle
from tests.training.evaluate.judged import rows, table
from training.data.judgments import read_judgments
from training.data.lists import JudgedList
from training.evaluate.systems import BM25, OWN_ORDER, baselines, of_bundle, score_error


@pytest.fixture
def lists(tmp_path: Path) -> list[JudgedList]:
    """Judged lists with an order of their own."""
    return read_judgments(table(tmp_path / "own.csv"))


def test_a_bundle_ranks_by_its_default_graph(tiny_bundle: Path, lists: list[JudgedList]) -> None:
    """Scores are the logits of the served graph on the bundle's own texts, list by list."""
    system = of_bundle(tiny_bundle / "tiny", lists, 20)
    manifest = read_bundle(tiny_bundle, "tiny").manifest

    assert system.name == f"{manifest.name}@{manifest.version}"
    assert [len(scores) for scores in system.scores] == [len(judged) for judged in lists]
    best = [int(np.argmax(scores)) for scores in system.scores]
    assert np.mean([lists[at].grades[place] >= 2 for at, place in enumerate(best)]) > 0.8


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, lists: list[JudgedList]) -> None:
    """A folder without a manifest is the bundle's own error."""
    with pytest.raises(BundleError, match=r"manifest.json"):
        of_bundle(tmp_path, lists, 20)


def test_the_lists_own_order_stands_beside_bm25(lists: list[JudgedList]) -> None:
    """A file with ranks has a system for them, the first rank best; a file without has BM25 alone."""
    own, bm25 = baselines(lists, lists)

    assert (own.name, bm25.name) == (OWN_ORDER, BM25)
    assert [int(np.argmax(scores)) for scores in own.scores] == [judged.ranks.index(1) for judged in lists]


def test_products_without_a_rank_come_last(tmp_path: Path) -> None:
    """What the engine did not return stands after all that it did; without any rank there is no such system."""
    lines = ["1,hat,a,hat,3,7", "1,hat,b,hat,0,", "2,cap,c,cap,3,", "2,cap,d,cap,0,"]
    ranked = read_judgments(table(tmp_path / "some.csv", lines))
    bare = read_judgments(table(tmp_path / "none.csv", [line.rpartition(",")[0] + "," for line in rows()]))

    own, _ = baselines(ranked, ranked)

    assert [scores.tolist() for scores in own.scores] == [[-7, -8], [-8, -8]]
    assert [system.name for system in baselines(bare, bare)] == [BM25]


def test_the_score_error_is_of_scores_that_are_expectations(lists: list[JudgedList]) -> None:
    """Scores that are what products are worth have no error; logits have none to tell."""
    worth = [np.array([(0, 0, 0.5, 1)[grade] for grade in judged.grades]) for judged in lists]

    assert score_error(worth, lists, 20)["score error"].value == 0
    assert score_error([1 - each for each in worth], lists, 20)["score error"].value > 0.5
    assert score_error([each * 3 for each in worth], lists, 20) == {}
