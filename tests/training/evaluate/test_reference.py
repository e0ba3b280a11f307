"""The reference that traffic is compared with: a sample of held-out lists as the served graph scores them."""

from typing import Any

import numpy as np
import pytest

from bundle.text import PairEncoder, Product
from service.telemetry.drift import Drift
from tests.tiny import tiny_files, tiny_manifest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.data.lists import JudgedList
from training.evaluate.reference import BINS, sample_lists, score_reference
from training.models.runtime import OrtSession, score_rows

FILES = tiny_files()
MANIFEST = tiny_manifest(FILES)


def judged(query: str, *titles: str) -> JudgedList:
    """A list whose labels play no part here."""
    count = len(titles)
    return JudgedList(
        dataset="d",
        query_id=query,
        query=query,
        product_ids=tuple(map(str, range(count))),
        products=tuple(Product(title=title) for title in titles),
        labels=("E",) * count,
        grades=(3,) * count,
        gains=np.ones(count),
    )


LISTS = [
    judged("red shoes", "red running shoes", "garden hose", "红"),
    judged("coffee mug", "ceramic coffee mug", "mug " * 40, "dog leash", "coffee grinder"),
]


def reference(lists: list[JudgedList] = LISTS) -> Any:
    """The reference of some lists under the tiny graph."""
    return score_reference(MANIFEST, FILES["tokenizer.json"], FILES["model.onnx"], lists, "two lists")


def test_every_pair_is_counted() -> None:
    """The bins of the scores and the classes hold all seven pairs, and the sample says what they are."""
    told = reference()

    assert (told.pairs, told.sample, told.precision) == (7, "two lists", "fp32")
    assert sum(told.scores) == sum(told.classes) == 7
    assert (len(told.scores), len(told.classes)) == (BINS, 4)


def test_what_is_not_read_is_counted() -> None:
    """One title of seven is longer than its field may be, and one is in no piece of the vocabulary."""
    told = reference()

    assert told.truncated == pytest.approx(1 / 7)
    assert 0 < told.unknown < 0.1
    assert reference([judged("红", "红")]).unknown == pytest.approx(2 / 5)


def test_the_same_traffic_has_not_drifted() -> None:
    """A service that is asked the very pairs of the reference reads the same counts, and a stability index of 0."""
    manifest = MANIFEST.model_copy(update={"reference": reference()})
    encoder = PairEncoder(FILES["tokenizer.json"], MANIFEST.text)
    drift = Drift(manifest, window=7)
    for each in LISTS:
        encoded = encoder.encode(each.query, each.products)
        drift.add(score_rows(OrtSession(FILES["model.onnx"]), encoded, MANIFEST.text))
    told = drift.read()

    assert told.psi == pytest.approx(0.0, abs=1e-12)
    assert told.class_distance == 0
    assert (told.scores, told.classes) == (reference().scores, reference().classes)


def test_lists_are_drawn_whole_and_alike_each_time() -> None:
    """Lists are drawn until they hold enough pairs; the same seed draws the same ones."""
    lists = [judged(f"q{number}", "a", "b", "c") for number in range(100)]
    chosen = sample_lists(lists, 10, seed=1)

    assert len(chosen) == 4
    assert [each.query_id for each in chosen] == [each.query_id for each in sample_lists(lists, 10, seed=1)]
    assert [each.query_id for each in chosen] != [each.query_id for each in lists[:4]]
    assert len(sample_lists(lists, 10_000, seed=1)) == 100
