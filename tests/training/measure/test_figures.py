"""Figures and tables: the right lists under the right names."""

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from bundle.manifest import Calibration
from bundle.text import Product
from training.data.lists import LABELS, JudgedList
from training.measure import metrics
from training.measure.figures import SWAPPED, differences, figures, quality_rows, served_figures, tables

GRADE_OF = {"E": 3, "S": 2, "C": 1, "I": 0}
GAIN_OF = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}


def judged(labels: str, *, graded: bool = False) -> JudgedList:
    """A list with the given labels, one letter each."""
    size = len(labels)
    return JudgedList(
        dataset="d",
        query_id="q",
        query="q",
        product_ids=tuple(f"p{n}" for n in range(size)),
        products=(Product(),) * size,
        labels=(None,) * size if graded else tuple(labels),
        grades=tuple(GRADE_OF[label] for label in labels),
        gains=np.array([GAIN_OF[label] for label in labels]),
    )


LISTS = [judged("ESCIE"), judged("IIESC"), judged("SSCEI")]
PERFECT = [one.gains for one in LISTS]
REVERSED = [-one.gains for one in LISTS]
TIED = [np.zeros(len(one)) for one in LISTS]


def test_a_perfect_ranking_has_perfect_figures() -> None:
    """Scoring by the gains themselves gives 1 everywhere under their own map, and less under the swapped one."""
    found = figures(LISTS, PERFECT, 50)

    for name in ("ndcg@10", "ndcg", "ndcg@10 above random", "pair accuracy", "spearman", "auc exact"):
        assert found[name].value == pytest.approx(1.0)
    assert found[f"ndcg@10 {SWAPPED}"].value < 1


def test_tied_scores_give_the_floor() -> None:
    """A model that says nothing scores the random floor, half of the pairs, and no correlation."""
    found = figures(LISTS, TIED, 50)

    assert found["ndcg@10"].value == pytest.approx(np.mean([metrics.random_ndcg(p, 10) for p in PERFECT]))
    assert found["ndcg@10 above random"].value == pytest.approx(0)
    assert (found["pair accuracy"].value, found["spearman"].value, found["auc exact"].value) == (0.5, 0, 0.5)


def test_graded_lists_have_no_swapped_map() -> None:
    """Where labels are plain grades there is no S or C to swap."""
    found = figures([judged("ESCI", graded=True)], [np.arange(4.0)], 50)

    assert not any("S 0.01" in name for name in found)


def test_differences_are_paired() -> None:
    """A model less itself is exactly nothing; perfect less reversed is clearly above zero."""
    nothing = differences(LISTS, PERFECT, PERFECT, 50)["ndcg@10"]

    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert differences(LISTS, PERFECT, REVERSED, 50)["pair accuracy"].low == 1.0


def test_served_probabilities_are_judged_by_class() -> None:
    """Logits that separate the classes give each class a perfect AUC of its own and little calibration error."""
    calibration = Calibration(method="ordinal", slope=40.0, thresholds=(20.0, 60.0, 100.0))
    logits = [np.array(one.grades, float) for one in LISTS]
    found = served_figures(LISTS, logits, calibration, LABELS, 50)

    assert found["calibration error"].value < 1e-3
    assert {name for name in found if name.startswith("auc")} == {
        f"auc of P({label.name})" for label in LABELS
    }
    assert all(found[f"auc of P({label.name})"].value == 1 for label in LABELS)


def test_a_missing_class_has_no_figure() -> None:
    """A figure that cannot be computed is left out, so the manifest never holds nan."""
    found = figures([judged("SCIC")], [np.arange(4.0)], 50)

    assert "auc exact" not in found
    assert all(np.isfinite(interval.value) for interval in found.values())


def test_tables_name_the_gain_map_and_every_model() -> None:
    """A data set's table has a line per model and says how many lists are under it."""
    rows = quality_rows("esci validation", "BM25", figures(LISTS, REVERSED, 50))
    rows += quality_rows("esci validation", "student", figures(LISTS, PERFECT, 50))
    text = tables(rows)

    assert "E 1, S 0.1, C 0.01, I 0" in text
    assert "### esci validation (3 lists)" in text
    assert "| BM25 |" in text
    assert "| student | 1.0000 [1.0000, 1.0000]" in text
