"""Blending the teacher with a sentence encoder."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.blend import blended, cosines_of, spread_within  # noqa: E402

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


def test_both_members_weigh_alike() -> None:
    """At weight one half each member contributes the same spread within queries."""
    half = blended(LOGITS, COSINES, GROUPS, 0.5)
    from_cosine = half - 0.5 * LOGITS

    assert spread_within(from_cosine, GROUPS) == pytest.approx(0.5 * spread_within(LOGITS, GROUPS))


def test_ends_of_the_scale_are_the_members() -> None:
    """Weight 0 is the teacher itself; weight 1 orders as the encoder, at the teacher's spread."""
    alone = blended(LOGITS, COSINES, GROUPS, 1.0)

    assert blended(LOGITS, COSINES, GROUPS, 0.0).tolist() == LOGITS.tolist()
    assert np.argsort(alone[:3]).tolist() == np.argsort(COSINES[:3]).tolist()
    assert spread_within(alone, GROUPS) == pytest.approx(spread_within(LOGITS, GROUPS))


def test_levels_of_queries_do_not_set_the_scale() -> None:
    """A query-wise shift of a member leaves the margins of the blend as they are."""
    shifted = blended(LOGITS, COSINES + np.array([5.0, 5, 5, 0, 0, 0]), GROUPS, 0.5)
    margins = np.diff(blended(LOGITS, COSINES, GROUPS, 0.5)[:3])

    np.testing.assert_allclose(np.diff(shifted[:3]), margins, atol=1e-12)


def test_each_text_is_embedded_once() -> None:
    """Repeated titles and queries cost one embedding, and every pair gets its own cosine."""
    encoder = Letters()
    table = pa.table({"query": ["ab", "ab", "c"], "title": ["ab", "c", "ab"]})

    found = cosines_of(table, encoder)  # type: ignore[arg-type]

    np.testing.assert_allclose(found, [1.0, 0.0, 0.0], atol=1e-6)
    assert sorted(encoder.seen) == ["ab", "ab", "c", "c"]
