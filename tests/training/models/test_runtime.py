"""The runtime wrapper: every row at its own length, in its own place."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from bundle import PairEncoder, Product
from bundle.rows import padded_length
from bundle.store import read_bundle
from bundle.verify import verify_bundle
from training.models.runtime import OrtSession, buckets, score_rows


def test_session_passes_a_bundles_verification(tiny_bundle: Path) -> None:
    """The session is one that a bundle accepts: names, types, shapes and golden scores."""
    session = verify_bundle(read_bundle(tiny_bundle, "tiny"), OrtSession)

    assert [tensor.name for tensor in session.outputs] == ["logits"]


def test_rows_keep_their_order_whatever_their_length(tiny_bundle: Path) -> None:
    """Scores come back in the order of the rows, each as if its row were alone."""
    bundle = read_bundle(tiny_bundle, "tiny")
    encoder = PairEncoder(bundle.files["tokenizer.json"], bundle.manifest.text)
    rows = encoder.encode("red shoe", [Product(title="red shoe " * n) for n in (9, 1, 5, 1, 3)])
    session = OrtSession(bundle.files[bundle.manifest.graph().file])
    alone = [score_rows(session, [row], bundle.manifest.text)[0] for row in rows]

    np.testing.assert_allclose(alone, score_rows(session, rows, bundle.manifest.text), atol=1e-5)


def test_buckets_hold_rows_of_one_padded_length(tiny_bundle: Path) -> None:
    """A bucket's length is that of each of its rows, buckets are bounded, and none is lost."""
    bundle = read_bundle(tiny_bundle, "tiny")
    encoder = PairEncoder(bundle.files["tokenizer.json"], bundle.manifest.text)
    rows = encoder.encode("red shoe", [Product(title="red " * n) for n in range(1, 21)])
    found = buckets(rows, bundle.manifest.text.max_length, batch_rows=3)

    assert sorted(index for _, indices in found for index in indices) == list(range(20))
    assert all(len(indices) <= 3 for _, indices in found)
    assert all(
        padded_length(len(rows[index]), bundle.manifest.text.max_length) == length
        for length, indices in found
        for index in indices
    )
