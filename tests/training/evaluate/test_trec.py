"""Runs and qrels: any other tool measures the same on them."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from tests.training.evaluate.judged import table
from training.data.judgments import read_judgments, usable
from training.data.lists import JudgedList
from training.evaluate.trec import qrels_file, run_file, scale, word
from training.measure.comparison import RELEVANT, Comparison


def parsed(text: str, key: int, item: int, value: int) -> dict[str, dict[str, float]]:
    """Return the columns of a file as pytrec_eval takes them."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        columns = line.split()
        found.setdefault(columns[key], {})[columns[item]] = float(columns[value])
    return found


def measured(lists: list[JudgedList], scores: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Return what trec_eval says of the run and qrels that we write, list by list."""
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="independent figures are in the dev extra")
    qrels = {
        query: {product: int(gain) for product, gain in judged.items()}
        for query, judged in parsed(qrels_file(lists), 0, 2, 3).items()
    }
    relevant = min(
        round(float(gain) * scale(lists))
        for judged in lists
        for gain, grade in zip(judged.gains, judged.grades, strict=True)
        if grade >= RELEVANT
    )
    names = {"ndcg_cut.10", "ndcg_cut.5", "recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, names, relevance_level=relevant)
    return dict(evaluator.evaluate(parsed(run_file(lists, scores, "ours"), 0, 2, 4)))


@pytest.mark.parametrize("labels", [False, True])
def test_trec_eval_measures_the_same(tmp_path: Path, labels: bool) -> None:  # noqa: FBT001 - pytest names it
    """NDCG@10, NDCG@5 and MRR of every list are trec_eval's on the files we write, for grades and for labels."""
    path = table(tmp_path / "own.csv")
    if labels:
        text = path.read_text(encoding="utf-8").replace("grade", "label")
        path.write_text(
            re.sub(r",([0-3]),(\d)$", lambda m: f",{'ICSE'[int(m[1])]},{m[2]}", text, flags=re.MULTILINE)
        )
    lists = usable(read_judgments(path))
    draws = np.random.default_rng(5)
    scores = [draws.permutation(len(judged)).astype(float) for judged in lists]

    theirs = measured(lists, scores)

    ours = Comparison(lists, {"x": scores}).of_lists["x"]
    for metric, name in (("NDCG@10", "ndcg_cut_10"), ("NDCG@5", "ndcg_cut_5"), ("MRR", "recip_rank")):
        assert [theirs[judged.query_id][name] for judged in lists] == pytest.approx(ours[metric][0], abs=1e-6)


@pytest.mark.parametrize(
    ("gains", "steps"),
    [([1.0, 0.1, 0.01, 0.0], 100), ([1.0, 2 / 3, 1 / 3], 3), ([0.123456, 1.0], 100), ([0.0, 1.0], 1)],
)
def test_gains_become_whole_numbers(tmp_path: Path, gains: list[float], steps: int) -> None:
    """The smallest number that makes all gains whole is found; what has none is cut into hundredths."""
    grades = {str(number): gain for number, gain in enumerate(gains)}
    lines = [f"1,hat,p{number},hat,{number}," for number in range(len(gains))]

    lists = read_judgments(table(tmp_path / "own.csv", lines), grades=grades)

    assert scale(lists) == steps


def test_ids_are_one_word() -> None:
    """Spaces of every kind in an id are written so that a line keeps its columns."""
    assert word("a b\tc\u00a0d") == "a%20b%09c%C2%A0d"
