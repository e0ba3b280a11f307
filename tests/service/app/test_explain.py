"""Tests of service/app/explain.py and of its route."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from bundle import PairEncoder, Product, read_bundle
from bundle.rows import assemble, padded_length
from bundle.score import class_probabilities
from service.app.explain import MAX_EXPLAINED, explain_limits
from service.domain.ranking import LEAST
from service.settings import Settings
from tests.service.app.test_application_fuzz import FRAGMENTS, REQUESTS
from tests.service.support import (
    JSON,
    ROOT,
    Answer,
    FakeSession,
    Served,
    exchange,
    fake_app,
    is_documented_error,
    until,
)
from tests.tiny import TinySession

BY_FIELD = {
    "query": "red shoes 😀",
    "documents": [
        {"id": "B01", "title": "coffee mug", "brand": "trail", "category": "kitchen", "bullets": ["a"]},
        {"id": 7, "title": "mug " * 30, "description": "red shoes " * 60},
        "red shoes",
        {"text": ""},
    ],
}
TEXT_KEYS = {"tokens", "unknown", "clipped", "over_limit", "over_length", "over_chars"}


def _explain(served: Served, body: object) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.run(exchange(served.app, "POST", "/v1/explain", raw, JSON))


@pytest.fixture(scope="module")
def told(served: Served) -> Any:
    """What is told of BY_FIELD."""
    answer = _explain(served, BY_FIELD)
    assert answer.status == 200
    return answer.json


def test_scores_and_order_are_those_of_the_ranking(served: Served) -> None:
    """The very digits of /v1/rerank's scores are there, by index, and its order."""
    explained = json.loads(_explain(served, BY_FIELD).body, parse_float=str)
    ranked = json.loads(served.post(BY_FIELD).body, parse_float=str)

    assert explained["order"] == [result["index"] for result in ranked["results"]]
    for result in ranked["results"]:
        document = explained["documents"][result["index"]]
        shared = {"index", "id", "relevance_score", "label"} & set(result)
        assert {key: result[key] for key in shared} == {key: document[key] for key in shared}
    for key in ("model", "bundle", "degraded", "coverage", "usage"):
        assert explained[key] == ranked[key]


def test_logits_and_probabilities_are_the_engines(told: Any, tiny_bundle: Path) -> None:
    """A logit is what the graph gives for the row, bit for bit, and the classes follow from it."""
    bundle = read_bundle(tiny_bundle, "tiny")
    manifest = bundle.manifest
    encoder = PairEncoder(bundle.files["tokenizer.json"], manifest.text)
    (row,) = encoder.encode(BY_FIELD["query"], [Product(text="red shoes")])  # type: ignore[arg-type]
    feeds = assemble([row, row], manifest.text.template, padded_length(len(row), manifest.text.max_length))
    logits = TinySession(bundle.files["model.onnx"]).run(feeds)[:1]
    document = told["documents"][2]

    assert logits[0] == np.float32(document["logit"])
    (expected,) = class_probabilities(logits, manifest.calibration).round(6).tolist()
    assert expected == pytest.approx(list(document["probabilities"].values()), abs=1e-6)
    assert [label.name for label in manifest.labels] == list(document["probabilities"])
    assert document["label"] == max(document["probabilities"], key=document["probabilities"].get)


def test_what_is_read_of_each_text_is_told(told: Any) -> None:
    """Fields come with their tokens and what cut them, in the contract's order, and unread ones by name."""
    first, second, third, empty = told["documents"]

    assert {"tokens": 3, "unknown": 1, "clipped": False} == {
        key: told["query"][key] for key in ("tokens", "unknown", "clipped")
    }
    assert set(told["query"]) == TEXT_KEYS
    assert (["title", "brand"], ["category", "bullets"]) == (list(first["fields"]), first["unread"])
    assert (6 + 3, 16) == (first["tokens"], first["padded_length"])
    assert (False, True, False) == (first["clipped"], second["clipped"], third["clipped"])
    title, description = second["fields"]["title"], second["fields"]["description"]
    assert (24, 6, 0, 0) == tuple(title[key] for key in ("tokens", "over_limit", "over_length", "over_chars"))
    assert description["over_chars"] == 200
    assert (16, True) == (description["tokens"], description["clipped"])
    assert ({}, [], 0, 6) == (empty["fields"], empty["unread"], empty["unknown"], empty["tokens"])
    assert told["usage"]["tokens"] == sum(document["tokens"] for document in told["documents"])


def test_times_are_whole_microseconds(told: Any) -> None:
    """Each stage has its time, the counting too, and no stage takes longer than all."""
    times = told["timings_us"]

    assert ["receive", "parse", "measure", "tokenize", "queue", "infer", "total"] == list(times)
    assert all(isinstance(value, int) and value >= 0 for value in times.values())
    assert times["total"] >= max(times.values())


def test_no_text_comes_back(served: Served) -> None:
    """Neither query nor documents are in the answer, even if documents are asked for."""
    body = {
        "query": "hunter2",
        "documents": [{"title": "hunter2", "hunter2": 1}, "hunter2"],
        "return_documents": True,
    }
    answer = _explain(served, body)

    assert answer.status == 200
    assert b"hunter2" not in answer.body


def test_top_n_cuts_the_order_alone(served: Served) -> None:
    """Every document is explained; the order ends where the ranking would."""
    cut = _explain(served, {**BY_FIELD, "top_n": 1}).json

    assert (1, 4) == (len(cut["order"]), len(cut["documents"]))
    assert cut["order"] == _explain(served, BY_FIELD).json["order"][:1]


def test_no_documents_leave_the_query(served: Served) -> None:
    """An empty list is answered with what is read of the query."""
    told = _explain(served, {"query": "red shoes", "documents": []}).json

    assert ([], [], 2, 1.0) == (told["documents"], told["order"], told["query"]["tokens"], told["coverage"])


def test_fewer_documents_are_taken_than_for_a_ranking(served: Served) -> None:
    """The cap is MOST_DOCUMENTS, or that of a ranking if it is lower, and docs/api.md states it."""
    documents = ["mug"] * MAX_EXPLAINED

    assert _explain(served, {"query": "mug", "documents": documents}).status == 200
    refused = _explain(served, {"query": "mug", "texts": [*documents, "mug"]})
    assert (422, "too_many_documents", ["texts"]) == (
        refused.status,
        refused.json["error"],
        refused.json["loc"],
    )
    assert explain_limits(Settings(max_documents=9)) == Settings(max_documents=9)
    assert f"at most {MAX_EXPLAINED} documents" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": "mug", "documents": ["mug"], "top_n": "hunter2"}, "invalid_field"),
        ({"query": " ", "documents": ["hunter2"]}, "blank_query"),
        ({"query": "hunter2"}, "missing_documents"),
        (b'{"query": "hunter2', "malformed_json"),
    ],
)
def test_mistakes_are_refused(served: Served, body: object, code: str) -> None:
    """What cannot be ranked is refused with the documented codes, without an echo."""
    answer = _explain(served, body)

    assert code == answer.json["error"]
    assert is_documented_error(answer)
    assert b"hunter2" not in answer.body


def test_what_others_and_mistakes_add_is_ignored_and_named(served: Served) -> None:
    """Keys and models of other APIs are taken as in a ranking, and a key that nobody knows is named."""
    body = {"query": "mug", "documents": ["mug", 5], "top_k": 1, "model": "x", "budgetms": 1}
    told = _explain(served, body).json

    assert (["budgetms"], "tiny@1.0.0", 1) == (told["ignored"], told["model"], len(told["order"]))


def test_what_was_not_scored_has_no_logit(tiny_bundle: Path) -> None:
    """A document that the engine gives no finite number for is explained without logit and classes."""
    calls = iter([True])
    session = FakeSession(nonfinite=lambda _: next(calls, False))
    with Served(fake_app(tiny_bundle, session)) as served:
        told = _explain(served, {"query": "red", "documents": ["mug", "shoes", "bed"]}).json

    missing = [document for document in told["documents"] if document["logit"] is None]
    assert 1 == len(missing)
    assert (None, None) == (missing[0]["label"], missing[0]["probabilities"])
    assert 0 < missing[0]["relevance_score"] < LEAST
    assert missing[0]["tokens"] > 0
    assert told["order"][-1] == missing[0]["index"]
    assert "nonfinite" == told["degraded"]
    assert all(document["probabilities"] for document in told["documents"] if document is not missing[0])


def test_it_is_admitted_as_a_ranking_is(tiny_bundle: Path) -> None:
    """While it waits it holds its tokens, and a full queue refuses it."""
    gate = threading.Event()
    session = FakeSession(gate=gate)
    body = json.dumps({"query": "red", "documents": ["red shoes " * 20] * 40}).encode()

    async def flood(served: Served) -> tuple[Answer, float, Answer]:
        first = asyncio.create_task(exchange(served.app, "POST", "/v1/explain", body, JSON))
        await until(lambda: bool(session.runs))
        held = served.metric("shelfrank_queue_tokens")
        refused = await exchange(served.app, "POST", "/v1/explain", body, JSON)
        gate.set()
        return refused, held, await first

    with Served(fake_app(tiny_bundle, session, queue_tokens=2_000)) as served:
        refused, held, first = served.run(flood(served))

        assert (429, 200) == (refused.status, first.status)
        assert held > 1_000
        assert served.metric("shelfrank_queue_tokens") == 0
        assert served.metric("shelfrank_documents_total") == 40


@settings(max_examples=200)
@given(body=REQUESTS.map(lambda value: json.dumps(value).encode()) | FRAGMENTS)
def test_any_request_is_explained_or_refused(served: Served, body: bytes) -> None:
    """Whatever arrives is explained, or refused as documented, never a 5xx."""
    answer = _explain(served, body)

    if answer.status == 200:
        told = answer.json
        assert sorted(told["order"]) == sorted(set(told["order"]))
        assert told["usage"]["tokens"] == sum(document["tokens"] for document in told["documents"])
    else:
        assert answer.status in {400, 404, 422}
        assert is_documented_error(answer)


@pytest.mark.parametrize("budget_ms", [0, -1, 1e-9])
def test_a_budget_that_is_over_at_once_reads_nothing(served: Served, budget_ms: float) -> None:
    """When the budget ends before anything was read, every document comes back, and all counts are 0."""
    answer = _explain(served, {**BY_FIELD, "budget_ms": budget_ms})
    told = answer.json

    assert (200, "deadline", 0.0) == (answer.status, told["degraded"], told["coverage"])
    assert [0, 1, 2, 3] == [document["index"] for document in told["documents"]] == told["order"]
    assert [(0, 0, {}, None)] * 4 == [
        (document["tokens"], document["padded_length"], document["fields"], document["logit"])
        for document in told["documents"]
    ]
    assert 0 == told["query"]["tokens"]


def test_a_product_that_is_unknown_is_not_read(tiny_bundle: Path, tmp_path: Path) -> None:
    """What is told of the products beside it is their own, wherever it stands."""
    documents: list[object] = [{"id": "nowhere"}, {"id": "B01", "title": "red shoes"}, {"id": "gone"}, "mug"]
    with Served(fake_app(tiny_bundle, FakeSession(), catalogue=str(tmp_path))) as served:
        told = _explain(served, {"query": "red", "documents": documents}).json
        known = _explain(served, {"query": "red", "documents": documents[1::2]}).json["documents"]

    assert "unknown_id" == told["degraded"]
    assert [0, 0] == [told["documents"][index]["tokens"] for index in (0, 2)]
    for document, alone in zip(told["documents"][1::2], known, strict=True):
        assert {**document, "index": 0} == {**alone, "index": 0}
