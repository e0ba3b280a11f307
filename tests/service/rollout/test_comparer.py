"""Tests of service/rollout/comparer.py: what is asked of whom, on a ranker of ours, and whole canaries on real engines."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bundle import Product, read_bundle
from service import create_app
from service.domain.budget import DEFAULT_TENANT, Terms
from service.domain.ranking import RankedProduct, Ranking, Unscored
from service.engine.cost import CostModel
from service.engine.model import LoadedModel
from service.errors import Reason, Refused
from service.rollout.comparer import (
    BUSY_S,
    MAX_PRODUCTS,
    MAX_TASKS,
    MAX_WAIT_S,
    PIECE,
    ModelComparer,
    scores_of,
)
from service.rollout.trial import MIN_DOCUMENTS, MIN_LISTS, AbortReason, is_sampled
from service.rollout.versions import Candidate, CandidateRole, Version, Versions
from service.scoring.ranker import RequestedGroups
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.support import JSON, WAIT_S, Served, exchange, until
from tests.tiny import WORDS, build_tiny

LIST = [Product(title=f"{place}") for place in range(20)]
GROUPS: RequestedGroups = [("mug", LIST)]
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of one model in three versions, of which the third ranks the other way round."""
    root = tmp_path_factory.mktemp("opinions")
    for number, name in enumerate(NAMES, start=1):
        build_tiny(root, name, version=f"{number}", scale=-8.0 if name == "three" else 8.0)
    return root


def ranking(scores: Sequence[float | None], **unscored: int) -> Ranking:
    """A ranking of these scores, in the order of the request."""
    places = [RankedProduct(index, score or 0.0, score and "exact") for index, score in enumerate(scores)]  # type: ignore[arg-type]
    logits = np.array([np.nan if score is None else score for score in scores], np.float32)
    return Ranking(tuple(places), logits=logits, unscored=Unscored(**unscored), rows=len(scores), tokens=99)


UP = ranking([place / 20 for place in range(20)])


class Fleet:
    """One stable model and newcomers, and a ranker that notes what it is asked and scores a product by its title."""

    def __init__(self, root: Path, *, canary: float = 0.0, shadow: float = 0.0, **settings: float) -> None:
        models = [LoadedModel(read_bundle(root, name), "fp32", "cpu", []) for name in NAMES]
        self.stable, self.canary, self.shadow = (Version(model) for model in models)
        self.versions = Versions(self.stable)
        for role, version, share in (("canary", self.canary, canary), ("shadow", self.shadow, shadow)):
            if share:
                self.versions.admit(cast("CandidateRole", role), Candidate(version, share))
        self.metrics = Metrics()
        self.asked: list[tuple[LoadedModel, RequestedGroups, Terms]] = []
        self.backlog_s = 0.0
        self.ended: list[AbortReason] = []
        self.gate: asyncio.Event | None = None
        self.fails: Exception | None = None
        self.turned = False
        told = Settings(**{"canary_compared": 1.0} | settings)  # type: ignore[arg-type]
        self.comparer = ModelComparer(
            told,
            self.versions,
            self.metrics,
            rank=self.rank,
            backlog_s=lambda: self.backlog_s,
            end_canary=self.end,
        )

    async def rank(self, model: LoadedModel, groups: RequestedGroups, terms: Terms) -> Ranking:
        """Score each product by its title, or the other way round."""
        self.asked.append((model, groups, terms))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        ((_, products),) = groups
        found = [int(product.title) / 20 for product in products if isinstance(product, Product)]
        return ranking([0.999 - score if self.turned else score for score in found])

    def end(self, reason: AbortReason) -> None:
        """Take the canary out."""
        self.ended.append(reason)
        self.versions.dismiss("canary")

    def lists(self, role: str) -> float | None:
        """How many lists were compared."""
        return self.metrics.registry.get_sample_value("shelfrank_canary_lists_total", {"role": role})

    def gauge(self, name: str, role: str) -> float | None:
        """One of the agreement's gauges."""
        return self.metrics.registry.get_sample_value(f"shelfrank_canary_{name}", {"role": role})

    async def settle(self) -> None:
        """Wait until no second opinion is under way."""
        await until(lambda: not self.comparer._tasks)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Do some work on an event loop."""

    async def bounded() -> None:
        await asyncio.wait_for(work(), WAIT_S)

    asyncio.run(bounded())


def answers(fleet: Fleet, version: Version, times: int = 1, told: Ranking = UP) -> None:
    """Answer some requests by a model, one after another, and wait for the second opinions."""

    async def work() -> None:
        for _ in range(times):
            fleet.comparer.observe(version, GROUPS, told)
            await fleet.settle()

    run(work)


def test_the_stable_model_looks_at_a_canarys_list(root: Path) -> None:
    """It scores the same products in small pieces at the lowest priority, and what comes of it is told."""
    fleet = Fleet(root, canary=0.5)
    answers(fleet, fleet.canary)
    pieces = [products for _, groups, _ in fleet.asked for _, products in groups]

    assert {fleet.stable.model} == {model for model, _, _ in fleet.asked}
    assert LIST == [product for products in pieces for product in products]
    assert max(map(len, pieces)) == PIECE
    for _, _, terms in fleet.asked:
        assert (terms.priority, terms.on_failure, terms.tenant) == ("offline", "error", DEFAULT_TENANT)
        assert 0 < terms.deadline_s - time.monotonic() <= MAX_WAIT_S
    assert (1, 0) == (fleet.lists("canary"), fleet.lists("shadow"))
    assert (1.0, pytest.approx(1.0)) == (
        fleet.gauge("overlap_at_10", "canary"),
        fleet.gauge("kendall_tau", "canary"),
    )


def test_a_shadow_looks_at_the_stable_models_list(root: Path) -> None:
    """It scores what the stable model answered, not what the canary did, and its drift is followed."""
    fleet = Fleet(root, canary=0.5, shadow=1.0, canary_compared=0.0)
    answers(fleet, fleet.canary)
    assert not fleet.asked
    answers(fleet, fleet.stable)

    assert {fleet.shadow.model} == {model for model, _, _ in fleet.asked}
    assert (0, 1) == (fleet.lists("canary"), fleet.lists("shadow"))
    assert (len(LIST), 0) == (fleet.shadow.drift.read().documents, fleet.stable.drift.read().documents)


def test_shares_are_kept(root: Path) -> None:
    """Which lists are looked at is said by their query alone, for a shadow and for a canary each on its own."""
    fleet = Fleet(root, canary=0.5, shadow=0.3, canary_compared=0.6)
    queries = [f"query {number}" for number in range(300)]

    async def work() -> None:
        for query in queries:
            for version in (fleet.canary, fleet.stable):
                fleet.comparer.observe(version, [(query, LIST[:2])], ranking([0.1, 0.2]))
                await fleet.settle()

    run(work)
    asked: dict[Version, list[str]] = {fleet.stable: [], fleet.shadow: []}
    for model, ((query, _),), _ in fleet.asked:
        asked[fleet.stable if model is fleet.stable.model else fleet.shadow].append(query)

    assert asked[fleet.shadow] == [query for query in queries if is_sampled(query, 0.3, "shadow")]
    assert asked[fleet.stable] == [query for query in queries if is_sampled(query, 0.6, "compared")]


def test_a_canary_that_ranks_otherwise_is_taken_out(root: Path) -> None:
    """After as many lists as it takes, and not one before, a canary with the reverse order goes; one that agrees stays."""
    bad, good = Fleet(root, canary=0.5), Fleet(root, canary=0.5)
    bad.turned = True
    answers(bad, bad.canary, MIN_LISTS - 1)
    assert not bad.ended
    answers(bad, bad.canary)
    answers(good, good.canary, MIN_LISTS + 5)

    assert (["disagreeing"], []) == (bad.ended, good.ended)
    assert bad.gauge("kendall_tau", "canary") == pytest.approx(-1.0)


def test_a_canary_that_fails_is_taken_out(root: Path) -> None:
    """Documents without a score by the model's own fault count, beside those of the stable model; others do not."""
    broken = ranking([None] * 20, engine=10, nonfinite=10)
    late = ranking([None] * 20, deadline=20)
    fleet, like, slow = (Fleet(root, canary=0.5) for _ in range(3))
    answers(fleet, fleet.canary, MIN_DOCUMENTS // 20, broken)
    answers(like, like.stable, MIN_DOCUMENTS // 20, broken)
    answers(like, like.canary, MIN_DOCUMENTS // 20, broken)
    answers(slow, slow.canary, MIN_DOCUMENTS // 20, late)

    assert (["failing"], [], []) == (fleet.ended, like.ended, slow.ended)


def test_a_canary_that_is_slow_is_taken_out(root: Path) -> None:
    """Its runs take longer than the stable model's, by more than the setting allows."""

    def learn(costs: CostModel, per_token_s: float) -> None:
        for number in range(1, 200):
            costs.observe(64 * number, number, per_token_s * 64 * number)

    for slowdown, expected in ((2.0, ["slow"]), (5.0, [])):
        fleet = Fleet(root, canary=0.5, canary_compared=0.0, canary_slowdown=slowdown)
        learn(fleet.stable.model.costs, 1e-5)
        learn(fleet.canary.model.costs, 3e-5)
        answers(fleet, fleet.canary, MIN_LISTS)
        assert fleet.ended == expected


def test_nothing_is_added_to_much(root: Path) -> None:
    """While more waits than can be done at once, no list is looked at; one that was begun is given up."""
    fleet = Fleet(root, shadow=1.0)
    fleet.backlog_s = 2 * BUSY_S
    answers(fleet, fleet.stable)
    assert not fleet.asked
    fleet.backlog_s = 0.0

    async def work() -> None:
        fleet.gate = asyncio.Event()
        fleet.comparer.observe(fleet.stable, GROUPS, UP)
        await until(lambda: len(fleet.asked) == 1)
        fleet.backlog_s = 2 * BUSY_S
        fleet.gate.set()
        await fleet.settle()

    run(work)

    assert (1, 0) == (len(fleet.asked), fleet.lists("shadow"))


@pytest.mark.parametrize(
    "error", [Refused(Reason.OVERLOADED), Refused(Reason.DEADLINE), RuntimeError("engine")]
)
def test_a_second_opinion_may_fail(root: Path, error: Exception) -> None:
    """A refusal or an error ends one comparison and nothing else."""
    fleet = Fleet(root, shadow=1.0)
    fleet.fails = error
    answers(fleet, fleet.stable)
    assert (1, 0) == (len(fleet.asked), fleet.lists("shadow"))
    fleet.fails = None
    answers(fleet, fleet.stable)

    assert fleet.lists("shadow") == 1


def test_only_a_few_are_under_way(root: Path) -> None:
    """However many answers come, no more lists wait for a second opinion than the bound; closing ends them."""
    fleet = Fleet(root, shadow=1.0)

    async def work() -> None:
        fleet.gate = asyncio.Event()
        for _ in range(10 * MAX_TASKS):
            fleet.comparer.observe(fleet.stable, GROUPS, UP)
        await until(lambda: len(fleet.asked) == MAX_TASKS)
        assert len(fleet.comparer._tasks) == MAX_TASKS
        fleet.comparer.close()
        await fleet.settle()

    run(work)

    assert fleet.lists("shadow") == 0


def test_a_long_list_is_looked_at_in_part(root: Path) -> None:
    """Only the first products of a long list are compared, so that comparing does not take long."""
    fleet = Fleet(root, shadow=1.0)
    count = 3 * MAX_PRODUCTS

    async def work() -> None:
        products = [Product(title=f"{place % 20}") for place in range(count)]
        fleet.comparer.observe(fleet.stable, [("mug", products)], ranking([0.1] * count))
        await fleet.settle()

    run(work)

    assert sum(len(products) for _, ((_, products),), _ in fleet.asked) == MAX_PRODUCTS
    assert fleet.lists("shadow") == 1


@pytest.mark.parametrize("products", [0, 1])
def test_what_has_no_order_is_not_looked_at(root: Path, products: int) -> None:
    """A list of fewer than two products, or the pairs of several queries, are no list to agree on."""
    fleet = Fleet(root, shadow=1.0)

    async def work() -> None:
        fleet.comparer.observe(fleet.stable, [("mug", LIST[:products])], ranking([0.5] * products))
        fleet.comparer.observe(fleet.stable, [("mug", LIST[:1]), ("cup", LIST[:1])], ranking([0.5, 0.6]))
        await fleet.settle()

    run(work)

    assert not fleet.asked


def test_a_newcomer_that_has_gone_is_told_of_no_more(root: Path) -> None:
    """What was under way when it left is not counted, and brings no series of it back."""
    fleet = Fleet(root, shadow=1.0)

    async def work() -> None:
        fleet.gate = asyncio.Event()
        fleet.comparer.observe(fleet.stable, GROUPS, UP)
        await until(lambda: len(fleet.asked) == 1)
        fleet.versions.dismiss("shadow")
        fleet.gate.set()
        await fleet.settle()
        fleet.comparer.observe(fleet.stable, GROUPS, UP)

    run(work)

    assert fleet.lists("shadow") == 0
    assert fleet.gauge("kendall_tau", "shadow") is None


def test_scores_are_in_the_order_of_the_request() -> None:
    """The scores of a ranking, best first, are put back in their places; what has none is NaN."""
    places = (RankedProduct(2, 0.9, "exact"), RankedProduct(0, 0.5, "exact"), RankedProduct(1, 5e-7, None))

    np.testing.assert_array_equal(scores_of(Ranking(places)), [0.5, np.nan, 0.9])


def _ask(served: Served, number: int) -> str:
    """Rank a list of its own and return the bundle's id."""
    words = WORDS[number % 40 :][:12]
    answer = served.post({"query": f"{words[0]} {words[3]} {number}", "documents": [*words]})
    assert answer.status == 200
    return str(answer.json["bundle"])


@pytest.mark.parametrize(("candidate", "stays"), [("two", True), ("three", False)])
def test_a_bad_canary_aborts_itself(root: Path, candidate: str, stays: bool) -> None:  # noqa: FBT001 - a table
    """On real engines a canary that turns the order round is gone after a while, and one of equal weights is not."""
    settings = Settings(
        models_root=root, bundle="one", workers=2, cache_bytes=0, canary_compared=1.0, canary_slowdown=1_000
    )
    with Served(create_app(settings)) as served:
        body = f'{{"bundle": "{candidate}", "share": 1.0}}'.encode()
        assert served.run(exchange(served.app.state.admin, "POST", "/admin/canary", body, JSON)).status == 200
        lists = {"role": "canary"}
        number = 0
        while (
            served.metric("shelfrank_canary_lists_total", **lists) < MIN_LISTS
            and not served.metric("shelfrank_canary_aborts_total")
            and number < 20 * MIN_LISTS
        ):
            _ask(served, number)
            number += 1
        bundle = _ask(served, number)

        assert served.metric("shelfrank_canary_lists_total", **lists) >= MIN_LISTS
        assert served.metric("shelfrank_canary_aborts_total") == (0 if stays else 1)
        assert bundle == read_bundle(root, candidate if stays else "one").id
