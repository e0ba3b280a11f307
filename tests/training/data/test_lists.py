"""Judged lists: grouped by query, measured only where a ranking can matter."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

import pyarrow as pa

from training.data.lists import LABELS, by_list, product_of, rankable, read_lists, read_scores
from training.data.sources import PAIRS, write_rows
from training.errors import StageError

TEXTS = {"brand": "", "color": None, "category": "", "bullets": "", "description": ""}


def row(query: str, product: str, label: str | None, gain: float, **changes: object) -> dict[str, object]:
    """One judged pair of the validation split."""
    base = {
        "dataset": "d",
        "query_id": query,
        "query": f"find {query}",
        "locale": "us",
        "product_id": product,
    }
    told = {"title": f"title {product}", "label": label, "grade": 3, "target": 1.0, "gain": gain}
    return base | TEXTS | told | {"split": "validation"} | changes


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A file with a good list, a short one, one of a single gain, and a pair of another split."""
    rows = [row("good", f"p{n}", "ESCI"[n % 4], [1.0, 0.1, 0.01, 0.0][n % 4]) for n in range(5)]
    rows += [row("short", f"p{n}", "E", float(n)) for n in range(2)]
    rows += [row("flat", f"p{n}", "E", 1.0) for n in range(6)]
    rows += [row("good", f"q{n}", None, n / 3, dataset="graded") for n in range(4)] * 2
    rows += [row("seen", "p0", "E", 1.0, split="train")]
    write_rows(rows, PAIRS, tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def test_lists_are_per_data_set_and_query(pairs: Path) -> None:
    """The same query id in two data sets gives two lists; another split gives none."""
    found = {(judged.dataset, judged.query_id): len(judged) for judged in read_lists(pairs, "validation")}

    assert found == {("d", "good"): 5, ("d", "short"): 2, ("d", "flat"): 6, ("graded", "good"): 8}


def test_lists_that_no_ranking_changes_are_left_out(pairs: Path) -> None:
    """Short lists and lists of one gain are not measured on."""
    kept = [(judged.dataset, judged.query_id) for judged in rankable(read_lists(pairs, "validation"), 5)]

    assert kept == [("d", "good"), ("graded", "good")]


def test_swapped_gains_exchange_substitute_and_complement(pairs: Path) -> None:
    """The published script's map has S at 0.01 and C at 0.1; graded sets have none."""
    esci, graded = rankable(read_lists(pairs, "validation"), 5)

    np.testing.assert_allclose(esci.gains, [1, 0.1, 0.01, 0, 1], rtol=1e-6)
    assert esci.swapped_gains().tolist() == [1.0, 0.01, 0.1, 0.0, 1.0]
    assert graded.swapped_gains() is None


def test_values_are_cut_back_into_their_lists(pairs: Path) -> None:
    """What was scored in one row of pairs returns list by list."""
    lists = read_lists(pairs, "validation")
    total = sum(map(len, lists))

    assert by_list(np.arange(total), lists)[0].tolist() == [0, 1, 2, 3, 4]
    assert [len(part) for part in by_list(np.arange(total), lists)] == [len(judged) for judged in lists]


def test_scores_of_a_stage_are_read_list_by_list(pairs: Path, tmp_path: Path) -> None:
    """Every product gets the score that a stage wrote for it; a hole in the file is an error."""
    lists = rankable(read_lists(pairs, "validation"))
    rows = [
        {"dataset": j.dataset, "query_id": j.query_id, "product_id": p, "score": float(g)}
        for j in lists
        for p, g in zip(j.product_ids, j.gains, strict=True)
    ]
    names = [("dataset", pa.string()), ("query_id", pa.string()), ("product_id", pa.string())]
    schema = pa.schema([*names, ("score", pa.float32())])
    path = tmp_path / "scores.parquet"
    write_rows(rows, schema, path)
    scores = read_scores(path, lists)

    assert [list(s) for s in scores] == [pytest.approx(list(j.gains)) for j in lists]

    write_rows(rows[1:], schema, path)
    with pytest.raises(StageError, match="no score"):
        read_scores(path, lists)


def test_a_missing_field_is_empty() -> None:
    """A null in the file is an empty text, not the word None."""
    assert product_of(row("q", "p", "E", 1.0)).color == ""


def test_labels_ascend_with_the_grade() -> None:
    """The label of grade k is the k-th, and gains never fall."""
    assert [label.name for label in LABELS] == ["irrelevant", "complement", "substitute", "exact"]
    assert [label.gain for label in LABELS] == sorted(label.gain for label in LABELS)
