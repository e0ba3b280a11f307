"""Tests of service/domain/ranking.py."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import Manifest
from service.domain.ranking import DECIMALS, LEAST, Cause, decimal, rank_products
from tests.tiny import tiny_files, tiny_manifest

LOGITS = st.lists(st.floats(width=32), max_size=40)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The tiny bundle's manifest."""
    return tiny_manifest(tiny_files())


def _causes(count: int, **failed: int) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    causes = np.zeros(count, dtype=np.int8)
    for name, index in failed.items():
        causes[index] = Cause[name.upper()]
    return causes


@given(data=st.data(), values=LOGITS)
def test_any_logits_give_every_product_one_place(
    manifest: Manifest, data: st.DataObject, values: list[float]
) -> None:
    """Whatever the engine returns, the places are a permutation, in order, with falling scores in (0, 1]."""
    told = data.draw(st.lists(st.sampled_from(Cause), min_size=len(values), max_size=len(values)))
    places, unscored = rank_products(
        np.array(values, dtype=np.float32), np.array(told, dtype=np.int8).reshape(-1), manifest
    )
    scored = [place for place in places if place.label is not None]
    rest = places[len(scored) :]

    assert sorted(place.index for place in places) == list(range(len(values)))
    assert [(-place.score, place.index) for place in scored] == sorted(
        (-place.score, place.index) for place in scored
    )
    assert list(places[: len(scored)]) == scored
    assert all(LEAST <= place.score <= 1 and place.score == round(place.score, DECIMALS) for place in scored)
    assert [place.index for place in rest] == sorted(place.index for place in rest)
    printed = [float(decimal(place.score)) for place in rest]
    assert all(LEAST > more > less > 0 for more, less in pairwise(printed))
    assert unscored.total == len(rest)
    assert unscored.by_cause["engine"] == told.count(Cause.ENGINE)


def test_ten_thousand_unscored_products_keep_their_order_in_print(manifest: Manifest) -> None:
    """As many products as a request may have are told apart by their printed scores, all above 0."""
    count = 10_000
    places, _ = rank_products(np.zeros(count, np.float32), np.full(count, Cause.OVERLOAD, np.int8), manifest)

    printed = [float(decimal(place.score)) for place in places]
    assert all(more > less > 0 for more, less in pairwise(printed))


def test_a_row_without_a_score_comes_last(manifest: Manifest) -> None:
    """A logit that is not finite gets no label and a score below any that is computed."""
    logits = np.array([np.nan, -1e30, 2.0], dtype=np.float32)
    places, unscored = rank_products(logits, _causes(3), manifest)

    assert [2, 1, 0] == [place.index for place in places]
    assert places[2].label is None
    assert 0 < places[2].score < LEAST <= places[1].score
    assert unscored.reason == "nonfinite"


def test_the_gravest_cause_is_named(manifest: Manifest) -> None:
    """If rows are missing for several causes, all are counted and the answer names the gravest."""
    logits = np.array([np.nan, np.nan, 1.0, 1.0], dtype=np.float32)
    _, unscored = rank_products(logits, _causes(4, engine=0, deadline=2, unknown_id=3), manifest)

    assert "engine" == unscored.reason
    assert {"engine": 1, "nonfinite": 1, "deadline": 1, "overload": 0, "unknown_id": 1} == unscored.by_cause
    assert (4, 3) == (unscored.total, unscored.failed)


def test_scores_that_print_alike_are_ties(manifest: Manifest) -> None:
    """Two scores that differ beyond the printed decimals keep the order of the request."""
    places, _ = rank_products(np.array([40.0, 41.0, 39.0], dtype=np.float32), _causes(3), manifest)

    assert [0, 1, 2] == [place.index for place in places]
