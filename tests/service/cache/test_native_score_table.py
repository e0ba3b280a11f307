"""A table that is written in C promises and holds what the one in numpy does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.cache.memory import ScoreCache
from service.cache.native_score_table import NativeScoreTable
from service.cache.pair_keys import KEY_BYTES
from service.cache.score_table import PLACE_BYTES, WAYS, ScoreTable
from tests.service.cache.test_score_table import THOROUGH, AgainstAnOracle
from tests.service.native.support import needs_native

pytestmark = needs_native
SETS = 3
NUMBERS = st.integers(0, 40)
PAIRS = st.lists(st.tuples(NUMBERS, st.floats(width=32)), max_size=60)


class NativeAgainstAnOracle(AgainstAnOracle):
    """The same rules for the other table."""

    kind = NativeScoreTable


NativeAgainstAnOracle.TestCase.settings = THOROUGH
TestNativeAgainstAnOracle = NativeAgainstAnOracle.TestCase


@given(st.lists(st.tuples(PAIRS, st.lists(NUMBERS, max_size=20), st.floats(0, 20)), max_size=8))
def test_every_array_is_the_same(steps: list[tuple[list[tuple[int, float]], list[int], float]]) -> None:
    """After any stores and finds both tables hold the same bytes and have counted the same."""
    tables = [kind(SETS * WAYS * PLACE_BYTES, 10.0) for kind in (ScoreTable, NativeScoreTable)]
    now_s, found = 0.0, []
    for pairs, asked, passed_s in steps:
        now_s += passed_s
        logits = np.array([logit for _, logit in pairs], np.float64)
        for table in tables:
            table.store([number.to_bytes(KEY_BYTES, "little") for number, _ in pairs], logits, now_s)
            answer = table.find([number.to_bytes(KEY_BYTES, "little") for number in asked], now_s)
            found.append(np.nan_to_num(answer, nan=1e30).tobytes())  # one NaN is as good as another

    assert found[::2] == found[1::2]
    held = [
        (table._keys.tobytes(), table._ends_s.tobytes(), table._used.tobytes(), table._logits.tobytes())
        for table in tables
    ]
    assert held[0] == held[1]
    assert (tables[0].entries, tables[0].evictions) == (tables[1].entries, tables[1].evictions)


def test_a_table_without_room_holds_nothing() -> None:
    """With less than one set's bytes everything is missed."""
    table = NativeScoreTable(PLACE_BYTES, 10.0)
    table.store([bytes(KEY_BYTES)], np.ones(1, np.float64), 0.0)

    assert np.isnan(table.find([bytes(KEY_BYTES)], 0.0)).all()
    assert not len(table.find([], 0.0))


def test_the_cache_takes_it_where_it_can() -> None:
    """The service's cache is on the faster table wherever the library is."""
    assert type(ScoreCache(1_000, 1.0).table) is NativeScoreTable
