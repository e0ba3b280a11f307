"""Tests of service/ranking.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import Manifest
from service.ranking import DECIMALS, rank_places
from tests.tiny import tiny_files, tiny_manifest

LOGITS = st.lists(st.floats(width=32), max_size=40)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The tiny bundle's manifest."""
    return tiny_manifest(tiny_files())


@given(data=st.data(), values=LOGITS)
def test_any_logits_give_every_product_one_place(
    manifest: Manifest, data: st.DataObject, values: list[float]
) -> None:
    """Whatever the engine returns, the places are a permutation, in order, with scores in [0, 1]."""
    failed = data.draw(st.sets(st.sampled_from(range(len(values))))) if values else set()
    places, unscored = rank_places(np.array(values, dtype=np.float32), failed, manifest)
    scored = [place for place in places if place.label is not None]

    assert sorted(place.index for place in places) == list(range(len(values)))
    assert [(-place.score, place.index) for place in scored] == sorted(
        (-place.score, place.index) for place in scored
    )
    assert places[: len(scored)] == tuple(scored)
    assert all(0 <= place.score <= 1 and place.score == round(place.score, DECIMALS) for place in places)
    assert unscored.total == len(places) - len(scored)
    assert unscored.engine == len(failed)


def test_a_row_without_a_score_comes_last(manifest: Manifest) -> None:
    """A logit that is not finite gets score 0 and no label, behind the worst scored product."""
    places, unscored = rank_places(np.array([np.nan, -1e30, 2.0], dtype=np.float32), set(), manifest)

    assert [2, 1, 0] == [place.index for place in places]
    assert (0.0, None) == (places[2].score, places[2].label)
    assert unscored.reason == "nonfinite"


def test_the_engine_outweighs_a_nonfinite_logit(manifest: Manifest) -> None:
    """If rows are missing for both causes, the answer names the engine."""
    _, unscored = rank_places(np.array([np.nan, np.nan], dtype=np.float32), {0}, manifest)

    assert (1, 1, "engine") == (unscored.nonfinite, unscored.engine, unscored.reason)


def test_scores_that_print_alike_are_ties(manifest: Manifest) -> None:
    """Two scores that differ beyond the printed decimals keep the order of the request."""
    places, _ = rank_places(np.array([40.0, 41.0, 39.0], dtype=np.float32), set(), manifest)

    assert [0, 1, 2] == [place.index for place in places]
