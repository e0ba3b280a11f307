"""Tests of service/telemetry/drift.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bundle.manifest import Calibration, Label, Manifest, ScoreReference
from bundle.score import class_probabilities, relevance
from service.telemetry.drift import Drift, mix_distance, stability_index
from tests.tiny import tiny_files, tiny_manifest

FILES = tiny_files()
LABELS = ("irrelevant", "complement", "substitute", "exact")


def manifest(
    scores: tuple[int, ...] = (500,) * 10, classes: tuple[int, ...] = (1_000, 1_000, 1_000, 2_000)
) -> Manifest:
    """The tiny bundle's manifest with a reference of 5,000 pairs."""
    reference = ScoreReference(
        sample="invented", precision="fp32", pairs=5_000, scores=scores, classes=classes,
        truncated=0.25, unknown=0.01,
    )  # fmt: skip
    return tiny_manifest(FILES).model_copy(update={"reference": reference})


def logits(*values: float) -> NDArray[np.float32]:
    """Some logits."""
    return np.array(values, np.float32)


COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=12)


@given(st.data())
def test_the_index_is_a_divergence(data: st.DataObject) -> None:
    """It is never negative or infinite, 0 for equal histograms, and the same both ways round."""
    before = data.draw(COUNTS)
    after = data.draw(st.lists(st.integers(0, 10_000), min_size=len(before), max_size=len(before)))
    told = stability_index(before, after)

    assert math.isfinite(told)
    assert told >= 0
    assert stability_index(before, before) == 0
    assert told == pytest.approx(stability_index(after, before))


def test_the_index_is_the_published_one() -> None:
    """Away from the smoothing, (0.5, 0.5) against (0.4, 0.6) gives 0.1 ln 1.25 + 0.1 ln 1.2 = 0.04055."""
    assert stability_index([5e8, 5e8], [4e8, 6e8]) == pytest.approx(
        0.1 * math.log(1.25) + 0.1 * math.log(1.2)
    )


@given(st.lists(st.integers(1, 100), min_size=2, max_size=6), st.integers(1, 5))
def test_the_distance_is_between_0_and_1(counts: list[int], times: int) -> None:
    """The same mix has distance 0 whatever its size; mixes without a common class have distance 1."""
    apart = [0] * len(counts)

    assert mix_distance(counts, [count * times for count in counts]) == pytest.approx(0)
    assert mix_distance([*counts, *apart], [*apart, *counts]) == pytest.approx(1)


@given(
    st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=60),
    st.floats(0.1, 5),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3, unique=True),
    st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 1.0]), min_size=4, max_size=4),
)
def test_logits_are_counted_as_their_scores(
    values: list[float], slope: float, thresholds: list[float], gains: list[float]
) -> None:
    """For any calibration and gains, bins and classes are those of the scores, but for ties at an edge."""
    thresholds = [threshold + place * 0.01 for place, threshold in enumerate(sorted(thresholds))]
    calibration = Calibration(method="ordinal", slope=slope, thresholds=tuple(thresholds))
    labels = tuple(Label(name=name, gain=gain) for name, gain in zip(LABELS, sorted(gains), strict=True))
    drift = Drift(manifest().model_copy(update={"calibration": calibration, "labels": labels}))
    drift.add(np.array(values, np.float32))
    told = drift.read()
    probabilities = class_probabilities(values, calibration)
    scores = relevance(probabilities, labels)

    def at_most(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.cumsum(counts)[:-1]

    edges = np.arange(1, 10) / 10
    found = at_most(np.array(told.scores))
    assert (found <= [(scores <= edge + 1e-5).sum() for edge in edges]).all()
    assert (found >= [(scores < edge - 1e-5).sum() for edge in edges]).all()
    clear = np.sort(probabilities, axis=1)[:, -1] - np.sort(probabilities, axis=1)[:, -2] > 1e-5
    wrong = np.abs(np.array(told.classes) - np.bincount(probabilities.argmax(axis=1), minlength=4)).sum()
    assert wrong <= 2 * (~clear).sum()
    assert sum(told.scores) == sum(told.classes) == told.documents == len(values)


def test_what_has_no_score_is_not_counted() -> None:
    """Only finite logits count."""
    drift = Drift(manifest())
    drift.add(logits(0.0, float("nan"), float("inf"), -float("inf")))

    assert drift.read().documents == 1


def test_nothing_is_compared_before_there_is_enough() -> None:
    """Below 5,000 documents index and distance are unknown, from then on they are told."""
    drift = Drift(manifest())
    drift.add(np.zeros(4_999, np.float32))
    before = drift.read()
    drift.add(logits(0.0))
    after = drift.read()

    assert math.isnan(before.psi)
    assert math.isnan(before.class_distance)
    assert after.psi > 0.25
    assert after.class_distance == pytest.approx(0.8)


def test_without_a_reference_the_counts_remain() -> None:
    """A bundle without a reference has bins, classes and rates, and nothing to compare them with."""
    drift = Drift(tiny_manifest(FILES), window=2)
    drift.add(logits(-9.0, 9.0), rows=2, truncated=1, tokens=10, unknown=1)
    told = drift.read()

    assert drift.reference() is None
    assert math.isnan(told.psi)
    assert (told.scores[0], told.scores[-1], told.truncated, told.unknown) == (1, 1, 0.5, 0.1)


def test_the_reference_is_told_beside_it() -> None:
    """The reference reads as traffic does."""
    told = Drift(manifest()).reference()

    assert told is not None
    assert (told.documents, told.psi, told.class_distance) == (5_000, 0, 0)
    assert (told.scores, told.truncated, told.unknown) == ((500,) * 10, 0.25, 0.01)


def test_old_traffic_is_forgotten() -> None:
    """After two windows nothing of what came before is left, and never more than two are kept."""
    drift = Drift(manifest(), window=100)
    drift.add(np.full(100, -9.0, np.float32), rows=100, truncated=100)
    for _ in range(20):
        drift.add(np.full(10, 9.0, np.float32), rows=10)
        assert drift.read().documents <= 200

    assert drift.read().scores[0] == 0
    assert drift.read().truncated == 0


def test_no_rows_and_no_such_token_give_no_rate() -> None:
    """Where every pair came from a cache, or the tokenizer has no unknown token, the rates are unknown."""
    drift = Drift(manifest())
    drift.add(logits(0.0))
    assert math.isnan(drift.read().truncated)
    drift.add(logits(0.0), rows=1, tokens=7, unknown=None)

    assert drift.read().truncated == 0
    assert math.isnan(drift.read().unknown)
