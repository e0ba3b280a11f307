"""Tests of service/scoring/scorer.py, on fake engines that fail as they are told to."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import Product
from service.domain.budget import DEFAULT_TENANT
from service.domain.ranking import LEAST, Ranking
from service.errors import Reason, Refused
from service.scoring.queue_entry import QueueEntry
from service.scoring.scorer import HEADROOM
from service.telemetry.metrics import Metrics
from tests.service.support import WAIT_S, Bench, FakeSession, fake_bench, terms, until

Result = TypeVar("Result")
WORDS = ["red", "blue", "green", "shoe", "mug", "cup", "desk", "lamp", "sofa", "shelf", "bed", "towel"]
PRODUCTS = [Product(title=f"{word} {' '.join(WORDS[:count])}") for count, word in enumerate(WORDS)]


def _with(bench: Bench, work: Callable[[], Awaitable[Result]]) -> Result:
    """Run `work` on an event loop while the scorer's workers run."""

    async def main() -> Result:
        return await asyncio.wait_for(work(), WAIT_S)

    bench.pool.start()
    try:
        return asyncio.run(main())
    finally:
        bench.pool.stop(WAIT_S)


def _rank(bench: Bench, products: list[Product] = PRODUCTS) -> Ranking:
    async def work() -> Ranking:
        return await bench.rank([("red shoe", products)])

    return _with(bench, work)


def _by_index(ranking: Ranking) -> dict[int, tuple[float, str | None]]:
    return {place.index: (place.score, place.label) for place in ranking.products}


def _row_of(root: Path, index: int) -> Callable[[NDArray[np.int64]], bool]:
    """Recognise the row of one product among padded rows."""
    (row,) = fake_bench(root, FakeSession()).model.encoder.encode("red shoe", [PRODUCTS[index]])
    return lambda ids: bool(np.array_equal(ids[: len(row)], row.ids) and not ids[len(row) :].any())


def test_every_product_has_a_place_and_the_cost_is_counted(tiny_bundle: Path) -> None:
    """A ranking is a permutation of the products with its tokens, padding and times."""
    ranking = _rank(fake_bench(tiny_bundle, FakeSession(), FakeSession()))

    assert set(range(len(PRODUCTS))) == _by_index(ranking).keys()
    assert ranking.tokens > 0
    assert (ranking.tokens + ranking.padding_tokens) % 8 == 0
    assert min(ranking.tokenize_s, ranking.queue_s, ranking.infer_s) >= 0


def test_buckets_hold_rows_of_one_padded_length(tiny_bundle: Path) -> None:
    """Every run of the engine has a length that is a multiple of 8, and together they are all rows."""
    session = FakeSession()
    _rank(fake_bench(tiny_bundle, session))

    assert all(length % 8 == 0 for _, length in session.runs)
    assert sum(rows for rows, _ in session.runs) == len(PRODUCTS)


def test_no_products_need_no_worker(tiny_bundle: Path) -> None:
    """An empty list is ranked at once, without a run."""
    session = FakeSession()

    assert Ranking() == _rank(fake_bench(tiny_bundle, session), [])
    assert session.runs == []


def test_a_measured_ranking_is_the_same_and_tells_more(tiny_bundle: Path) -> None:
    """Places and cost are those of a plain ranking; the counts of tokens come with it."""
    bench = fake_bench(tiny_bundle, FakeSession(), FakeSession())
    groups = [("red shoe", PRODUCTS[:5]), ("mug", PRODUCTS[5:])]

    async def work() -> tuple[Ranking, Ranking]:
        return await bench.rank(groups), await bench.rank(groups, measured=True)

    plain, measured = _with(bench, work)

    assert (plain.products, plain.tokens, plain.truncated) == (
        measured.products,
        measured.tokens,
        measured.truncated,
    )
    assert ((), 0.0) == (plain.uses, plain.measure_s)
    assert [5, len(PRODUCTS) - 5] == [len(uses) for _, uses in measured.uses]
    assert measured.tokens == sum(use.tokens for _, uses in measured.uses for use in uses)
    assert measured.measure_s > 0
    assert measured.queue_s >= 0


def test_no_products_are_measured_without_a_run(tiny_bundle: Path) -> None:
    """The query of an empty list is counted, and the engine is left alone."""
    session = FakeSession()
    bench = fake_bench(tiny_bundle, session)

    async def work() -> Ranking:
        return await bench.rank([("red shoe", [])], measured=True)

    ranking = _with(bench, work)

    ((query, products),) = ranking.uses
    assert (2, []) == (query.tokens, products)
    assert not ranking.products
    assert session.runs == []


def test_a_nonfinite_logit_costs_its_own_row_only(tiny_bundle: Path) -> None:
    """A NaN out of the engine leaves that product unscored; all others score as without it."""
    clean = _by_index(_rank(fake_bench(tiny_bundle, FakeSession())))
    ranking = _rank(fake_bench(tiny_bundle, FakeSession(nonfinite=_row_of(tiny_bundle, 5))))

    assert {**clean, 5: (LEAST / 2, None)} == _by_index(ranking)
    assert (1, "nonfinite", 5) == (
        ranking.unscored.total,
        ranking.unscored.reason,
        ranking.products[-1].index,
    )


def test_a_poison_row_costs_itself_only(tiny_bundle: Path) -> None:
    """If the engine raises whenever one row is present, that row alone stays unscored."""
    clean = _by_index(_rank(fake_bench(tiny_bundle, FakeSession())))
    is_poison = _row_of(tiny_bundle, 7)
    poisoned = FakeSession(fails=lambda ids: any(is_poison(row) for row in ids))
    ranking = _rank(fake_bench(tiny_bundle, poisoned))

    assert {**clean, 7: (LEAST / 2, None)} == _by_index(ranking)
    assert (1, "engine") == (ranking.unscored.total, ranking.unscored.reason)


def test_an_engine_that_fails_once_costs_nothing(tiny_bundle: Path) -> None:
    """Rows of a failed run are tried once more, one by one, and then have their scores."""
    metrics, failed = Metrics(), threading.Event()

    def fails_once(ids: NDArray[np.int64]) -> bool:  # noqa: ARG001 - whatever the rows are
        is_first = not failed.is_set()
        failed.set()
        return is_first

    ranking = _rank(fake_bench(tiny_bundle, FakeSession(fails=fails_once), metrics=metrics))

    assert ranking.unscored.total == 0
    assert _by_index(_rank(fake_bench(tiny_bundle, FakeSession()))) == _by_index(ranking)
    assert metrics.registry.get_sample_value("shelfrank_worker_errors_total") == 1


def test_a_dead_engine_still_ends_every_call(tiny_bundle: Path) -> None:
    """If nothing can be computed, every product is unscored, in the order of the request; the worker lives."""
    bench = fake_bench(tiny_bundle, FakeSession(fails=lambda ids: True))  # noqa: ARG005 - whatever the rows are

    async def work() -> list[Ranking]:
        return [await bench.rank([("red shoe", PRODUCTS)]) for _ in range(20)]

    for ranking in _with(bench, work):
        assert list(range(len(PRODUCTS))) == [place.index for place in ranking.products]
        assert {None} == {place.label for place in ranking.products}


def test_logits_of_a_wrong_shape_are_an_engine_failure(tiny_bundle: Path) -> None:
    """An engine that returns one logit for many rows is not believed."""

    class Short(FakeSession):
        def run(self, feeds: object, /) -> NDArray[np.float32]:
            return super().run(feeds)[:1]  # type: ignore[arg-type]  # as the class it extends

    ranking = _rank(fake_bench(tiny_bundle, Short()), PRODUCTS[:1] * 3)

    assert ranking.unscored.total == 0  # computed again one by one, where one logit is right


def test_a_cancelled_call_never_reaches_the_engine(tiny_bundle: Path) -> None:
    """What waits behind a busy engine and is cancelled is dropped; its neighbours are ranked."""
    gate, metrics = threading.Event(), Metrics()
    session = FakeSession(gate=gate)
    bench = fake_bench(tiny_bundle, session, metrics=metrics)

    async def work() -> tuple[Ranking, Ranking]:
        first = bench.rank([("red shoe", PRODUCTS[:1])])
        await until(lambda: bool(session.runs))  # else others might be computed together with it
        gone = [bench.rank([("red shoe", PRODUCTS[:1])]) for _ in range(100)]
        last = bench.rank([("red shoe", PRODUCTS[:1])])
        for future in gone:
            future.cancel()
        gate.set()
        return await first, await last

    rankings = _with(bench, work)

    assert all(ranking.unscored.total == 0 for ranking in rankings)
    assert sum(rows for rows, _ in session.runs) == 2
    assert metrics.registry.get_sample_value("shelfrank_dropped_jobs_total") == 100


def test_a_failing_encoder_is_told_to_the_caller(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error outside the engine is a bug of ours: the call raises, and the worker goes on."""
    bench = fake_bench(tiny_bundle, FakeSession())

    async def work() -> Ranking:
        with monkeypatch.context() as patch:
            patch.setattr(bench.model.encoder, "encode", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await bench.rank([("red shoe", PRODUCTS)])
        return await bench.rank([("red shoe", PRODUCTS)])

    assert len(_with(bench, work).products) == len(PRODUCTS)


def test_a_failing_ranking_is_told_to_the_caller(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error after the engine is not taken for the engine's: the call raises instead of computing again."""
    session = FakeSession()
    bench = fake_bench(tiny_bundle, session)
    monkeypatch.setattr("service.scoring.job.rank_products", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        _rank(bench, PRODUCTS[:1])
    assert len(session.runs) == 1


def test_offloaded_work_returns_or_refuses(tiny_bundle: Path) -> None:
    """A function runs on a worker; a refusal comes back and is no error of the worker, any other error is."""
    metrics = Metrics()
    bench = fake_bench(tiny_bundle, FakeSession(), metrics=metrics)

    def refuse() -> str:
        raise Refused(Reason.BLANK_QUERY)

    async def work() -> str:
        with pytest.raises(Refused):
            await bench.scorer.offload(refuse)
        with pytest.raises(ZeroDivisionError):
            await bench.scorer.offload(lambda: 1 / 0)
        return await bench.scorer.offload(lambda: threading.current_thread().name)

    assert _with(bench, work).startswith("worker-")
    assert metrics.registry.get_sample_value("shelfrank_worker_errors_total") == 1


@pytest.mark.parametrize(
    ("each_s", "available_s", "admitted"),
    [(0.01, 0.145, 4), (0.01, 0.135, 0), (0.001, 0.13, 0), (0.001, 0.3, 50)],
    ids=["a part worth it", "too small a part", "cheap documents, too small a part", "all of them"],
)
def test_a_part_that_is_not_worth_its_answer_is_not_begun(
    tiny_bundle: Path, each_s: float, available_s: float, admitted: int
) -> None:
    """Behind others, what fits of a list is begun if it takes 40 ms of a worker or is all of it."""
    bench = fake_bench(tiny_bundle, FakeSession())
    waiting = QueueEntry[Any](object(), bench.model, 0, DEFAULT_TENANT, 1e12, 0.1, lambda *_: 0.1)
    bench.pool.submit(waiting)  # nobody starts it

    count, _ = bench.scorer._plan_admission([each_s] * 50, terms(), HEADROOM * available_s)

    assert count == admitted


def test_alone_any_part_is_begun(tiny_bundle: Path) -> None:
    """With nothing before it a list gets what its budget allows, were it one document."""
    bench = fake_bench(tiny_bundle, FakeSession())

    count, _ = bench.scorer._plan_admission([0.001] * 50, terms(), 0.0015)

    assert count == 1


def test_a_prediction_that_is_too_high_is_doubted(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is to be an error if it is late is let in against its prediction, if none was computed for a while."""
    session = FakeSession()
    bench = fake_bench(tiny_bundle, session)
    bench.model.costs._costs = (0.0, 1.0, 0.0)  # a second a product: two of them, and 1.5 s

    async def ask() -> Ranking:
        return await bench.rank(
            [("red shoe", PRODUCTS[:2])], on_failure="error", deadline_s=time.monotonic() + 1.5
        )

    async def work() -> Ranking:
        with pytest.raises(Refused) as refused:
            await ask()
        assert refused.value.reason is Reason.DEADLINE
        monkeypatch.setattr("service.scoring.scorer.STALE_AFTER_S", 0.0)
        return await ask()

    ranking = _with(bench, work)

    assert not ranking.unscored.total
    assert 2 == sum(rows for rows, _ in session.runs)
