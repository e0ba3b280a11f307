"""Tests of service/scoring/ranker.py over HTTP: products by id, scores from before, and both with the engine."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle import Product
from service.app.application import build_app
from service.cache.pair_keys import product_digest
from service.catalogue.catalogue import Catalogue
from service.domain.ranking import LEAST
from service.rollout.versions import Version, Versions
from service.scoring import ranker
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.support import JSON, Answer, FakeSession, Served, exchange, fake_bench, rerank, until

PRODUCTS = [
    {"id": "shoe", "title": "red shoes", "brand": "acme"},
    {"id": 7, "title": "coffee mug", "color": "blue"},
    {"id": "bed", "title": "oak bed", "bullets": ["wide", "long"]},
]
TEXTS = [{name: text for name, text in product.items() if name != "id"} for product in PRODUCTS]


class Shop:
    """An application with a catalogue and a cache on one fake engine."""

    def __init__(self, root: Path, catalogue: Path, **settings: Any) -> None:
        self.session = FakeSession()
        told = Settings(catalogue=str(catalogue), **settings)
        bench = fake_bench(root, self.session)
        self.served = Served(build_app(told, Versions(Version(bench.model)), bench.scorer, Metrics()))

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """Send a request."""
        return self.served.run(exchange(self.served.app, method, path, body, {"content-type": kind}))

    def put(self, products: list[dict[str, Any]]) -> Answer:
        """Store products."""
        return self.send("PUT", "/v1/products", json.dumps({"products": products}).encode())

    def rank(self, documents: list[Any], query: str = "red", path: str = "/v1/rerank") -> Any:
        """Return the answer of a ranking."""
        answer = self.send("POST", path, json.dumps({"query": query, "documents": documents}).encode())
        assert answer.status == 200, answer.body
        return answer.json

    @property
    def rows(self) -> int:
        """Rows that the engine has computed."""
        return sum(rows for rows, _ in self.session.runs)


def scores(told: Any) -> dict[int, float]:
    """Return the scores by index."""
    return {result["index"]: result["relevance_score"] for result in told["results"]}


@pytest.fixture
def shop(tiny_bundle: Path, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose cache is off."""
    shop = Shop(tiny_bundle, tmp_path / "catalogue", cache_bytes=0)
    with shop.served:
        assert {"stored": 3, "unchanged": 0} == shop.put(PRODUCTS).json
        yield shop


@pytest.fixture
def remembering(tiny_bundle: Path, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose cache is on."""
    shop = Shop(tiny_bundle, tmp_path / "catalogue")
    with shop.served:
        shop.put(PRODUCTS)
        yield shop


def test_an_id_stands_for_its_product(shop: Shop) -> None:
    """Products by id score as their texts do, also with a number sent as text."""
    by_text = shop.rank(TEXTS)
    by_id = shop.rank([{"id": "shoe"}, {"id": "7"}, {"id": "bed"}])

    assert scores(by_text) == scores(by_id)
    assert 3 == len(set(scores(by_id).values()))
    assert by_text["usage"] == by_id["usage"]
    assert ["shoe", "7", "bed"] == [by_id["results"][place]["id"] for place in _order(by_id)]


def _order(told: Any) -> list[int]:
    return sorted(range(len(told["results"])), key=lambda place: told["results"][place]["index"])


def test_fields_beside_an_id_override(shop: Shop) -> None:
    """A field that comes with an id replaces the stored one; the others stay."""
    changed = {**TEXTS[0], "title": "coffee mug"}

    assert scores(shop.rank([changed])) == scores(shop.rank([{"id": "shoe", "title": "coffee mug"}]))
    assert scores(shop.rank([changed])) != scores(shop.rank([{"id": "shoe"}]))


def test_an_unknown_id_is_named_and_last(shop: Shop) -> None:
    """It costs no other document anything; with fields of its own it is ranked by them."""
    told = shop.rank([{"id": "nothing"}, {"id": "shoe"}, {"id": "new", "title": "coffee mug"}])
    last = told["results"][-1]

    assert ("unknown_id", 2 / 3) == (told["degraded"], pytest.approx(told["coverage"]))
    assert (0, "nothing", None) == (last["index"], last["id"], last["label"])
    assert 0 < last["relevance_score"] < LEAST
    assert scores(shop.rank([TEXTS[0], {"title": "coffee mug"}])) == {0: scores(told)[1], 1: scores(told)[2]}
    assert 1 == shop.served.metric("shelfrank_catalogue_lookups_total", result="miss")


def test_products_are_shown_changed_and_deleted(shop: Shop) -> None:
    """What is stored can be read, counts as unchanged when it comes again, and is gone when deleted."""
    shown = shop.send("GET", "/v1/products/shoe").json
    again = shop.put([PRODUCTS[0], {**PRODUCTS[1], "title": "tea mug"}]).json
    lines = b"\n".join(json.dumps({"id": f"n/{number}", "title": "x"}).encode() for number in range(3))
    stored = shop.send("PUT", "/v1/products", lines, "application/x-ndjson")
    gone = [shop.send("DELETE", "/v1/products/n/1"), shop.send("GET", "/v1/products/n/1")]
    many = shop.send("DELETE", "/v1/products", json.dumps({"ids": ["n/0", "n/1"]}).encode())

    assert {"title": "red shoes", "brand": "acme"} == shown["fields"]
    assert {"stored": 1, "unchanged": 1} == again
    assert {"stored": 3, "unchanged": 0} == stored.json
    assert [200, 404] == [answer.status for answer in gone]
    assert {"deleted": 1, "unknown": 1} == many.json


def test_a_bad_product_changes_nothing(shop: Shop) -> None:
    """A request with a fault is refused with its place, and none of its products is stored."""
    refused = shop.put([{"id": "a", "title": "x"}, {"title": "b"}])

    assert (422, "invalid_field", ["products", 1, "id"]) == (
        refused.status,
        refused.json["error"],
        refused.json["loc"],
    )
    assert 404 == shop.send("GET", "/v1/products/a").status


def test_dialects_take_ids_too(shop: Shop) -> None:
    """Cohere's objects are products of the catalogue if they have an id."""
    told = shop.rank([{"id": "shoe"}, {"id": "bed"}], path="/cohere/v1/rerank")

    assert scores(shop.rank(TEXTS[::2])) == scores(told)


def test_ids_are_explained_by_their_texts(shop: Shop) -> None:
    """An explanation reads the stored texts field by field."""
    body = json.dumps({"query": "red", "documents": [{"id": "shoe"}]}).encode()
    (told,) = shop.send("POST", "/v1/explain", body).json["documents"]

    assert {"title", "brand"} <= set(told["fields"])


def test_without_a_catalogue_an_id_is_no_product(tiny_bundle: Path) -> None:
    """A document of an id alone is refused, and so are the catalogue's own paths."""
    bench = fake_bench(tiny_bundle, FakeSession())
    app = build_app(Settings(), Versions(Version(bench.model)), bench.scorer, Metrics())
    with Served(app) as served:
        ranked = served.post({"query": "red", "documents": [{"id": 1}, {"id": 2}]})
        shown = served.get("/v1/products/1")

    assert (422, ["documents", 0]) == (ranked.status, ranked.json["loc"])
    assert (404, "catalogue_off") == (shown.status, shown.json["error"])


def test_a_pair_is_computed_once(remembering: Shop) -> None:
    """Asked again, by text or by id, alone or beside others, it scores the same without the engine."""
    first = remembering.rank(TEXTS)
    computed = remembering.rows
    again = remembering.rank(TEXTS)
    by_id = remembering.rank([{"id": "bed"}, {"id": "shoe"}])
    more = remembering.rank([*TEXTS, "something else"])

    assert 3 == computed
    assert 4 == remembering.rows
    assert [0, 3, 2, 3] == [told["usage"]["cached"] for told in (first, again, by_id, more)]
    assert scores(first) == scores(again)
    assert {0: scores(first)[2], 1: scores(first)[0]} == scores(by_id)
    assert scores(first) == {index: score for index, score in scores(more).items() if index < 3}
    assert [result["label"] for result in first["results"]] == [
        result["label"] for result in again["results"]
    ]


def test_usage_is_the_same_whoever_had_the_scores(remembering: Shop) -> None:
    """Tokens and clipped texts of pairs that were known count as if they had been read now, in every dialect."""
    documents = ["red shoe", "red " * 500, "mug"]
    first, again, more = (remembering.rank(documents[:count]) for count in (2, 2, 3))
    body = json.dumps({"query": "red", "documents": documents}).encode()
    jina = remembering.send("POST", "/jina/v1/rerank", body).json

    told = [(one["usage"]["tokens"], one["usage"]["truncated"]) for one in (first, again, more)]
    assert told[0] == told[1]
    assert (told[0][1], told[2][1]) == (1, 1)
    assert told[2][0] > told[0][0] > 0
    assert jina["usage"] == {"total_tokens": told[2][0], "prompt_tokens": told[2][0], "completion_tokens": 0}


def test_another_query_or_text_is_another_pair(remembering: Shop) -> None:
    """Neither the query nor any field can differ without being computed."""
    remembering.rank(TEXTS)
    remembering.rank(TEXTS, query="shoe")
    remembering.rank([{**TEXTS[0], "brand": "acmf"}])

    assert 7 == remembering.rows


def test_the_same_list_at_once_is_computed_once(remembering: Shop) -> None:
    """Requests that come while a pair is being computed wait for it."""
    app = remembering.served.app
    remembering.session.gate = gate = threading.Event()

    async def ask() -> list[Answer]:
        body = {"query": "red", "documents": TEXTS}
        first = asyncio.create_task(rerank(app, body))
        await until(lambda: bool(remembering.session.runs))
        others = [asyncio.create_task(rerank(app, body, JSON)) for _ in range(5)]
        await asyncio.sleep(0.05)
        gate.set()
        return list(await asyncio.gather(first, *others))

    answers = remembering.served.run(ask())

    assert 3 == remembering.rows
    assert 1 == len({json.dumps(scores(answer.json)) for answer in answers})
    assert 15 == remembering.served.metric("shelfrank_cache_lookups_total", result="joined")


def test_a_score_that_is_not_finite_is_not_remembered(remembering: Shop) -> None:
    """It is computed again the next time."""
    remembering.session.nonfinite = lambda row: True  # noqa: ARG005 - whatever the row is
    broken = remembering.rank(TEXTS)
    remembering.session.nonfinite = lambda row: False  # noqa: ARG005 - as above
    normalized = remembering.rank(TEXTS)

    assert ("nonfinite", 0.0) == (broken["degraded"], broken["coverage"])
    assert (None, 1.0) == (normalized["degraded"], normalized["coverage"])


@pytest.mark.parametrize(
    ("documents", "threads"),
    [
        ([{"title": "red shoes"}], {"loop"}),
        ([{"title": f"shoe {number}"} for number in range(ranker.LOOP_DIGESTS + 1)], {"worker"}),
        ([{"title": "red " * 1_000, "text": f"{number}"} for number in range(20)], {"worker"}),
    ],
    ids=["short", "many", "long"],
)
def test_many_digests_leave_the_event_loop_alone(
    remembering: Shop, monkeypatch: pytest.MonkeyPatch, documents: list[Any], threads: set[str]
) -> None:
    """Products are digested on the event loop only while that is quick; scores are found again either way."""
    seen = set()

    def noted(product: Product) -> bytes:
        seen.add("worker" if threading.current_thread().name.startswith("worker-") else "loop")
        return product_digest(product)

    monkeypatch.setattr(ranker, "product_digest", noted)
    first, again = remembering.rank(documents), remembering.rank(documents)

    assert threads == seen
    assert scores(first) == scores(again)
    assert (0, len(documents)) == (first["usage"]["cached"], again["usage"]["cached"])


def test_ids_asked_for_again_wait_for_no_disk(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ids in another order are told from memory, until a product is written."""
    ids = [{"id": "shoe"}, {"id": "7"}, {"id": "nobody"}]
    lookup, asked = Catalogue.lookup, []

    def counted(self: Catalogue, *of: Any) -> Any:
        asked.append(of)
        return lookup(self, *of)

    monkeypatch.setattr(Catalogue, "lookup", counted)
    first = shop.rank(ids)
    again = shop.rank(ids[::-1])
    assert scores(again) == {2 - index: score for index, score in scores(first).items()}
    assert 1 == len(asked)

    shop.put([{**PRODUCTS[0], "title": "tea mug"}])
    assert scores(shop.rank(ids))[0] != scores(first)[0]
    assert 2 == len(asked)
