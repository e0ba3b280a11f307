"""Places and results that are made in C are those of the plain functions."""

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import Manifest
from bundle.manifest import Calibration, Label
from service.api.answer import write_results as write_plainly
from service.domain.ranking import Cause, Places, Unscored, rank_places
from service.native.ranking import NativeScale, write_results
from tests.service.native.support import needs_native
from tests.tiny import tiny_files, tiny_manifest

pytestmark = needs_native
MANIFEST = tiny_manifest(tiny_files())
BINARY = MANIFEST.model_copy(
    update={
        "calibration": Calibration(method="ordinal", slope=0.7, thresholds=(0.25,)),
        "labels": (Label(name="no", gain=0.0), Label(name="yes", gain=1.0)),
    }
)
LOGITS = st.floats(width=32) | st.floats(-8, 8, width=32) | st.integers(-3, 3).map(float)
CAUSES = st.sampled_from(Cause) | st.just(Cause.SCORED)
IDS = st.none() | st.text(max_size=40) | st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize("manifest", [MANIFEST, BINARY], ids=["labels", "two labels"])
@given(st.lists(st.tuples(LOGITS, CAUSES), max_size=60))
def test_any_logits_are_ranked_as_by_the_plain_function(
    manifest: Manifest, told: Sequence[tuple[float, Cause]]
) -> None:
    """Whatever the logits and causes, order, printed scores, labels and counts are the same."""
    logits = np.array([logit for logit, _ in told], np.float32)
    causes = np.array([cause for _, cause in told], np.int8)
    places, unscored = rank_places(logits, causes, manifest)
    *columns, counts = NativeScale(manifest).rank(logits, causes)
    indices, scores, labels = columns

    assert (places.indices, places.labels) == (indices, labels)
    assert np.abs(np.array(places.scores) - scores).max(initial=0.0) <= 1e-6
    assert unscored == Unscored(*counts[1:])
    assert counts[0] == len(told) - unscored.total


def test_ten_thousand_products() -> None:
    """A list of the most products that are allowed has the same order."""
    draws = np.random.default_rng(2)
    logits = draws.normal(size=10_000).astype(np.float32)
    causes = np.zeros(10_000, np.int8)

    assert rank_places(logits, causes, MANIFEST)[0].indices == NativeScale(MANIFEST).rank(logits, causes)[0]


@given(st.lists(st.tuples(IDS, st.floats(0, 1) | st.floats(1e-12, 1e-6)), max_size=30), st.data())
def test_results_are_those_of_the_plain_function(
    told: list[tuple[str | int | None, float]], data: st.DataObject
) -> None:
    """Any ids and scores give the same JSON, with a decimal that has a dot and no exponent."""
    scores = [round(score, 6) if score >= 1e-6 else score for _, score in told]
    indices = data.draw(st.permutations(range(len(told))))
    labels = data.draw(
        st.lists(st.sampled_from(["exact", None, 'odd "label"']), min_size=len(told), max_size=len(told))
    )
    count = data.draw(st.integers(0, len(told)))
    arguments = (Places(list(indices), scores, labels)[:count], [identifier for identifier, _ in told])
    written = write_results(*arguments)

    assert written == write_plainly(*arguments)
    assert count == len(json.loads(written))
    assert count == len(re.findall(rb'"relevance_score":[01]\.[0-9]{6,12},"label"', written))


def test_long_ids_find_room() -> None:
    """Ids that take six bytes a character when they are written do not go past the memory for them."""
    ids = ["\x01" * 256] * 200

    rows = json.loads(write_results(Places(list(range(200)), [0.5] * 200, ["exact"] * 200), ids))
    assert ids == [row["id"] for row in rows]


def test_half_a_character_is_an_error() -> None:
    """An id that is no text, which no request can hold, is refused by Python's own error."""
    with pytest.raises(UnicodeEncodeError):
        write_results(Places([0], [0.5], ["exact"]), ["\ud800"])


def test_places_are_read_as_a_sequence() -> None:
    """Places that are kept as columns are counted, sliced and read one by one."""
    places = Places([2, 0, 1], [0.5, 0.25, 0.125], ["exact", "exact", None])

    assert [2, 0, 1] == [place.index for place in places]
    assert (3, places[1], [0, 1]) == (len(places), list(places)[1], places[1:].indices)
