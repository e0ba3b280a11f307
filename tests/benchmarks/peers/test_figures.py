"""Tests of benchmarks/peers/figures.py: how times and scores become figures, and parts of a run one result."""

import dataclasses

import numpy as np
import pytest

from benchmarks.peers.figures import (
    closed_row,
    logits_of,
    merged,
    open_row,
    score_errors,
    sigmoid,
    spearman,
)
from benchmarks.peers.roster import PEERS
from benchmarks.shared.load import Sample
from benchmarks.shared.target import REPOSITORY
from bundle import read_bundle
from bundle.score import class_probabilities, relevance

PEER = PEERS[1]
MANIFEST = read_bundle(REPOSITORY / "models", "default").manifest


def test_a_closed_row_counts_pairs_over_time() -> None:
    """Four lists of 10 in two seconds are 20 pairs a second; percentiles are of single lists."""
    row = closed_row(PEER, 10, [0.2, 0.4, 0.4, 1.0], 1.3, (0.01, 0.99))

    assert (4, 400.0, 1000.0, 20.0) == (row.lists, row.p50_ms, row.p99_ms, row.pairs_per_s)
    assert (1.3, 0.01, 0.99) == (row.padding, row.score_error, row.spearman)


def test_an_open_row_counts_from_the_due_time() -> None:
    """A request that was sent late took long, and one that was not answered is an error."""
    samples = [Sample(1.0, 1.5, 2.0, 200, 1.0), Sample(2.0, 2.0, 2.1, 0, 1.0)]
    row = open_row(PEER, 50, 2.0, samples)

    assert (2, 1, 1000.0) == (row.lists, row.errors, row.p50_ms)


def test_scores_of_gains_are_turned_back_into_logits() -> None:
    """The expected gains of a bundle lead back to the logits that they came from."""
    logits = np.array([-2.0, -0.1, 0.7, 3.0])
    gains = relevance(class_probabilities(logits, MANIFEST.calibration), MANIFEST.labels)

    assert np.allclose(logits, logits_of(gains, MANIFEST), atol=1e-4)
    error, rank = score_errors({(4, 0): gains.tolist()}, {(4, 0): logits.tolist()}, MANIFEST)
    assert error is not None
    assert error < 1e-4
    assert 1.0 == rank


def test_the_largest_score_error_counts() -> None:
    """Over all lists that were scored; lists without a reference do not count."""
    scores = {(2, 0): sigmoid([0.0, 1.0]).tolist(), (2, 1): [0.5, 0.9], (2, 9): [0.0, 0.0]}
    error, rank = score_errors(scores, {(2, 0): [0.0, 1.0], (2, 1): [0.0, -1.0]}, None)

    assert pytest.approx(0.9 - sigmoid([-1.0])[0]) == error
    assert 0.0 == rank
    assert (None, None) == score_errors({}, {(2, 0): [0.0]}, None)


def test_equal_scores_share_their_rank() -> None:
    """The order in which ties happen to stand makes no difference."""
    assert spearman([1, 1, 2], [1, 2, 3]) == spearman([1, 1, 2], [2, 1, 3])


def test_parts_of_a_run_add_up() -> None:
    """Rows of another kind or size stay, those of the same are replaced; memory is the most that was seen."""
    first = dataclasses.asdict(closed_row(PEER, 10, [1.0], None, (None, None)))
    common = {"bundle": {"id": "a"}, "weights": "bundle", "products": "p", "missing": {}, "foreign_cpu": {}}
    before = {**common, "rows": [first, {**first, "products": 50}], "facts": {"x": {"memory_mb": 9.0}}}
    now = {**common, "rows": [{**first, "lists": 2}], "facts": {"x": {"memory_mb": 5.0}}}
    both = merged(before, now)

    assert [(50, 1), (10, 2)] == [(row["products"], row["lists"]) for row in both["rows"]]
    assert 9.0 == both["facts"]["x"]["memory_mb"]
    assert now == merged({}, now)
    with pytest.raises(ValueError, match="other weights"):
        merged(before, {**now, "bundle": {"id": "b"}})
