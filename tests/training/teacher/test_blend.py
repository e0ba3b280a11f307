"""Blending the teacher with the judge and with sentence encoders."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")

import pyarrow.parquet as pq  # noqa: E402

from training.errors import StageError  # noqa: E402
from training.teacher.blend import blended, cosines_of, labels_of, log_odds_of, spread_within  # noqa: E402

GROUPS = np.array([0, 0, 0, 1, 1, 1])
LOGITS = np.array([4.0, 0.0, -4.0, 10.0, 8.0, 6.0])
COSINES = np.array([0.1, 0.3, 0.2, 0.7, 0.8, 0.9])


class Letters:
    """An encoder of letter counts that notes what it was asked to embed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors [n, 26]."""
        self.seen += texts
        counts = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_members_weigh_as_asked() -> None:
    """A member's part of the blend has its share of the first member's spread within queries."""
    blend = blended({"teacher": (1.0, LOGITS), "cosine": (3.0, COSINES)}, GROUPS)
    from_cosine = blend - 0.25 * LOGITS

    assert spread_within(from_cosine, GROUPS) == pytest.approx(0.75 * spread_within(LOGITS, GROUPS))


def test_a_member_alone_is_itself() -> None:
    """The teacher without company is left as it is, whatever its weight."""
    assert blended({"teacher": (2.0, LOGITS)}, GROUPS).tolist() == LOGITS.tolist()


def test_levels_of_queries_do_not_set_the_scale() -> None:
    """A query-wise shift of a member leaves the margins of the blend as they are."""
    shift = np.array([5.0, 5, 5, 0, 0, 0])
    plain, shifted = (
        blended({"teacher": (1, LOGITS), "cosine": (1, COSINES + by)}, GROUPS) for by in (0 * shift, shift)
    )

    np.testing.assert_allclose(np.diff(shifted[:3]), np.diff(plain[:3]), atol=1e-12)


def test_a_member_speaks_only_where_it_scored_the_whole_query() -> None:
    """One missing score of a query silences the member there, and its spread is measured on the others."""
    odds = np.array([1.0, np.nan, 3.0, 3.0, 1.0, 2.0])

    blend = blended({"teacher": (1.0, LOGITS), "judge": (1.0, odds)}, GROUPS)

    assert blend[:3].tolist() == LOGITS[:3].tolist()
    scale = spread_within(LOGITS, GROUPS) / np.std(odds[3:])
    np.testing.assert_allclose(blend[3:], (LOGITS[3:] + scale * odds[3:]) / 2)


@pytest.mark.parametrize("flat", ["teacher", "judge"])
def test_a_member_without_spread_is_refused(flat: str) -> None:
    """A member that tells the products of a query apart by next to nothing ends the stage with its name and its spread."""
    members = {"teacher": (1.0, LOGITS), "judge": (1.0, np.array([1.0, np.nan, 3.0, 3.0, 1.0, 2.0]))}
    members[flat] = (1.0, members[flat][1] * 1e-7 + 5)

    with pytest.raises(StageError, match=f"the scores of {flat} differ by .e-0[78] within queries"):
        blended(members, GROUPS)


def test_judged_pairs_are_found_by_query_and_product(tmp_path: Path) -> None:
    """Log-odds go to their own pair; a pair nobody judged has none."""
    judged = {"query_id": ["a", "b"], "product_id": ["1", "1"], "log_odds": [0.5, -2.0]}
    pq.write_table(pa.table(judged), tmp_path / "judged.parquet")
    table = pa.table({"query_id": ["b", "a", "a"], "product_id": ["1", "2", "1"]})

    found = log_odds_of(table, tmp_path / "judged.parquet")

    np.testing.assert_array_equal(found, [-2.0, np.nan, 0.5])


def test_labels_speak_for_train_lists_alone(tmp_path: Path) -> None:
    """A held-out pair's label never reaches the blend, though it lies in the same file."""
    pairs = {
        "query_id": ["a", "b"],
        "product_id": ["1", "1"],
        "target": [0.5, 1.0],
        "split": ["train", "test"],
    }
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    table = pa.table({"query_id": ["b", "a"], "product_id": ["1", "1"]})

    np.testing.assert_array_equal(labels_of(table, tmp_path / "pairs.parquet"), [np.nan, 0.5])


def test_each_text_is_embedded_once() -> None:
    """Repeated titles and queries cost one embedding, and every pair gets its own cosine."""
    encoder = Letters()
    table = pa.table({"query": ["ab", "ab", "c"], "title": ["ab", "c", "ab"]})

    found = cosines_of(table, encoder)  # type: ignore[arg-type]

    np.testing.assert_allclose(found, [1.0, 0.0, 0.0], atol=1e-6)
    assert sorted(encoder.seen) == ["ab", "ab", "c", "c"]
