"""Tests of service/app/handlers.py and of the routes of other APIs, through ASGI; see also test_application."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.app.handlers import LOOP_PARSE_BYTES
from service.app.paths import FOREIGN
from service.domain.ranking import LEAST
from tests.service.app.test_application_fuzz import FRAGMENTS, JSON_VALUES
from tests.service.support import JSON, Answer, FakeSession, Served, exchange, fake_app, until

TEXTS = ["coffee mug", "red running shoes", "red shoes"]
BY_DOCUMENTS = {"query": "red shoes", "documents": TEXTS, "model": "somebody-elses"}
BY_TEXTS = {"query": "red shoes", "texts": TEXTS}
PAIRS = {"text_1": "red shoes", "text_2": TEXTS}
INPUTS = {"inputs": [["red shoes", text] for text in TEXTS]}
TENSORS = {
    "inputs": [
        {"name": "query", "shape": [1], "datatype": "BYTES", "data": ["red shoes"]},
        {"name": "document", "shape": [3], "datatype": "BYTES", "data": TEXTS},
    ]
}
INFER = "/v2/models/tiny/infer"
OWN_KEYS = {"error", "message", "detail", "loc", "id"}
ERROR_KEYS = {
    "/": {"error", "error_type"},
    "/rerank": {"error", "error_type"},
    "/predict": {"error", "error_type"},
    "/score": {"error"},
    "/v1/score": {"error"},
    "/v1/ranking": {"object", "message", "detail", "type"},
    "/v2/rerank": {"id", "message"},
    "/cohere/rerank": {"id", "message"},
    "/cohere/v1/rerank": {"id", "message"},
    "/cohere/v2/rerank": {"id", "message"},
    "/cohere/v2/v1/rerank": {"id", "message"},
    "/cohere/v2/v2/rerank": {"id", "message"},
    "/jina/v1/rerank": {"detail"},
    "/vllm/rerank": {"error"},
    "/vllm/v1/rerank": {"error"},
    "/vllm/v2/rerank": {"error"},
    "/vllm/score": {"error"},
    "/vllm/v1/score": {"error"},
    "/voyage/v1/rerank": {"detail"},
    INFER: {"error"},
}


def _post(served: Served, path: str, body: object, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.run(exchange(served.app, "POST", path, raw, {**JSON, **headers}))


def _scores(path: str, told: Any) -> dict[int, float]:
    """The score of each index in whatever shape a path answers."""
    if path.startswith("/v2/models"):
        return dict(enumerate(told["outputs"][0]["data"]))
    found = told if isinstance(told, list) else told.get("results", told.get("data"))
    return {result["index"]: result.get("relevance_score", result.get("score")) for result in found}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", BY_TEXTS),
        ("/", BY_DOCUMENTS),
        ("/rerank", BY_TEXTS),
        ("/rerank", BY_DOCUMENTS),
        ("/score", PAIRS),
        ("/v1/score", PAIRS),
        ("/v2/rerank", BY_DOCUMENTS),
        ("/cohere/v1/rerank", BY_DOCUMENTS),
        ("/cohere/v2/rerank", BY_DOCUMENTS),
        ("/jina/v1/rerank", BY_DOCUMENTS),
        ("/vllm/rerank", BY_DOCUMENTS),
        ("/voyage/v1/rerank", BY_DOCUMENTS),
        ("/v1/rerank", {**BY_DOCUMENTS, "top_k": 3}),
        ("/v1/rerank", {**BY_DOCUMENTS, "raw_scores": False}),
        ("/v1/rerank", {**BY_DOCUMENTS, "model": "tiny", "max_chunks_per_doc": 1}),
        ("/v1/rerank", {**BY_DOCUMENTS, "rank_fields": ["text"]}),
        (INFER, TENSORS),
        ("/v2/models/tiny/versions/1.0.0/infer", TENSORS),
    ],
)
def test_every_dialect_gives_the_same_scores(served: Served, path: str, body: object) -> None:
    """Behind every dialect is one engine: the scores are those of our own form, digit for digit."""
    own = served.post({"query": "red shoes", "documents": TEXTS}).json
    answer = _post(served, path, body)

    assert answer.status == 200
    assert _scores("/v1/rerank", own) == _scores(path, answer.json)


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_classes_come_with_probabilities(served: Served, path: str) -> None:
    """Pairs are answered with every class, at TEI's path and at that of a Hugging Face endpoint."""
    labels = {
        result["index"]: result["label"]
        for result in served.post({"query": "red shoes", "documents": TEXTS}).json["results"]
    }
    rows = _post(served, path, INPUTS).json

    assert [labels[index] for index in range(3)] == [row[0]["label"] for row in rows]


def test_pairs_with_different_queries_are_scored_in_one_request(served: Served) -> None:
    """Each pair has the score it has alone, in the order of the pairs."""
    pairs = [("red shoes", "red shoes"), ("coffee mug", "red shoes"), ("red shoes", "mug"), ("mug", "mug")]
    together = _post(
        served, "/score", {"text_1": [query for query, _ in pairs], "text_2": [text for _, text in pairs]}
    )

    alone = [
        served.post({"query": query, "documents": [text]}).json["results"][0]["relevance_score"]
        for query, text in pairs
    ]
    assert alone == [one["score"] for one in together.json["data"]]


def test_a_large_body_is_told_apart_on_a_worker(served: Served) -> None:
    """What is too large for the event loop is read elsewhere, in any dialect, with the same outcome."""
    texts = ["red shoes " * 100] * (LOOP_PARSE_BYTES // 1_000 + 1)
    body = {"query": "red shoes", "documents": [*texts, 5], "top_k": 2, "model": "any"}

    assert len(_post(served, "/v1/rerank", body).json["data"]) == 2
    assert OWN_KEYS == set(_post(served, "/v1/rerank", {**body, "query": " "}).json)
    assert {"detail"} == set(_post(served, "/voyage/v1/rerank", {**body, "query": " "}).json)


@pytest.mark.parametrize(("path", "keys"), ERROR_KEYS.items())
def test_every_path_refuses_in_its_own_shape(served: Served, path: str, keys: set[str]) -> None:
    """What is no JSON, has no content type or the wrong method is refused as the path's API does it."""
    for answer, status in (
        (_post(served, path, b"{"), 400),
        (_post(served, path, b"{}", **{"content-encoding": "br"}), 415),
        (served.run(exchange(served.app, "PUT", path)), 405),
    ):
        assert (status, "application/json") == (answer.status, answer.headers["content-type"])
        assert (OWN_KEYS if (status, path) == (405, "/") else keys) == set(answer.json)


def test_every_foreign_path_is_tested() -> None:
    """The table of this file has every path of the application's."""
    assert {*FOREIGN, INFER} == set(ERROR_KEYS)


def test_refusals_are_in_the_dialect_that_was_told_apart(served: Served) -> None:
    """At a shared path the error has the shape of whoever asked."""
    blank = {"query": " ", "documents": ["a"]}

    assert [{"loc", "msg", "type"}] == [set(one) for one in _post(served, "/rerank", blank).json["detail"]]
    assert {"error", "error_type"} == set(_post(served, "/rerank", {"query": " ", "texts": []}).json)


@pytest.mark.parametrize(("path", "keys"), [*ERROR_KEYS.items(), ("/v1/rerank", OWN_KEYS)])
def test_overload_is_told_in_every_dialect(tiny_bundle: Path, path: str, keys: set[str]) -> None:
    """While the queue is full each API hears so in its own words, and when to come again."""
    gate = threading.Event()
    session = FakeSession(gate=gate)
    long = {"query": "red", "documents": ["red shoes " * 20] * 40}

    async def refused(served: Served) -> Answer:
        first = asyncio.create_task(
            exchange(served.app, "POST", "/v1/rerank", json.dumps(long).encode(), JSON)
        )
        await until(lambda: bool(session.runs))
        answer = await exchange(
            served.app, "POST", path, json.dumps({**long, "top_k": 1, "texts": []}).encode(), JSON
        )
        gate.set()
        await first
        return answer

    with Served(fake_app(tiny_bundle, session, queue_tokens=1_000)) as served:
        answer = served.run(refused(served))

    assert (503 if path == INFER else 429, "1") == (answer.status, answer.headers["retry-after"])
    assert keys == set(answer.json)


def test_an_unscored_text_is_told_in_a_header(tiny_bundle: Path) -> None:
    """A dialect has no field for it, so scores are below any that is computed, in order, and a header says why."""
    broken = FakeSession(nonfinite=lambda row: True)  # noqa: ARG005 - whatever the row is
    with Served(fake_app(tiny_bundle, broken)) as served:
        ranked, raw = (
            _post(served, "/rerank", BY_TEXTS),
            _post(served, "/rerank", {**BY_TEXTS, "raw_scores": True}),
        )

    scores = _scores("/rerank", ranked.json)
    assert "nonfinite" == ranked.headers["x-degraded"]
    assert LEAST > scores[0] > scores[1] > scores[2] > 0
    assert (424, "backend") == (raw.status, raw.json["error_type"])


@pytest.mark.parametrize(
    ("path", "status", "keys"),
    [
        ("/v2", 200, {"name", "version", "extensions"}),
        ("/v2/health/live", 200, {"live"}),
        ("/v2/health/ready", 200, {"ready"}),
        ("/v2/models/tiny", 200, {"name", "versions", "platform", "inputs", "outputs"}),
        ("/v2/models/tiny/versions/1.0.0", 200, {"name", "versions", "platform", "inputs", "outputs"}),
        ("/v2/models/tiny/ready", 200, {"ready"}),
        ("/v2/models/tiny/versions/1.0.0/ready", 200, {"ready"}),
        ("/v2/models/tiny/versions/2/ready", 404, {"error"}),
        ("/v2/models/other", 404, {"error"}),
        ("/v2/nothing", 404, {"error"}),
        ("/v20", 404, OWN_KEYS),
    ],
)
def test_the_inference_protocol_tells_about_itself(
    served: Served, path: str, status: int, keys: set[str]
) -> None:
    """Server, health, model and version have their pages, and errors of one key."""
    answer = served.get(path)

    assert (status, keys) == (answer.status, set(answer.json))


def test_readiness_is_the_same_everywhere(tiny_bundle: Path) -> None:
    """While the service drains the protocol's health is red too, and its model is not ready."""
    with Served(fake_app(tiny_bundle, FakeSession())) as served:
        served.app.state.lifecycle.drain()

        for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
            assert (503, {"error"}) == (served.get(path).status, set(served.get(path).json))
        assert served.get("/v2/health/live").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/octet-stream"}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"inference-header-content-length": "-1"}, 400),
        ({"inference-header-content-length": "1e3"}, 400),
        ({"inference-header-content-length": "9" * 19}, 400),
        ({"inference-header-content-length": "999"}, 200),
        ({"inference-header-content-length": "7"}, 400),
    ],
)
def test_tensors_need_no_content_type(served: Served, headers: dict[str, str], status: int) -> None:
    """Clients of the protocol send none, and say in a header how much of the body is JSON."""
    answer = served.run(exchange(served.app, "POST", INFER, json.dumps(TENSORS).encode(), headers))

    assert status == answer.status


def test_only_the_served_model_infers(served: Served) -> None:
    """A model or version that is not here is a 404, before the body is read."""
    for path in ("/v2/models/other/infer", "/v2/models/tiny/versions/9/infer"):
        assert (404, {"error"}) == (_post(served, path, b"").status, set(_post(served, path, b"").json))
    assert _post(served, "/v2/models/tiny@1.0.0/infer", TENSORS).status == 200


def test_answers_are_counted_by_pattern(served: Served) -> None:
    """A path with a name in it is counted under its pattern, whatever the name."""
    label = {"route": "/v2/models/{model}/infer", "status": "4xx"}
    before = served.metric("shelfrank_requests_total", **label)
    _post(served, "/v2/models/a/infer", b"")
    _post(served, "/v2/models/b/infer", b"")

    assert before + 2 == served.metric("shelfrank_requests_total", **label)


SECRET = "hunter2"
SECRETS: list[Any] = [
    {SECRET: SECRET},
    {"query": SECRET, "documents": [{"title": 1, "id": [1], SECRET: SECRET}], "texts": [{}], "top_k": SECRET},
    {"query": " ", "documents": [SECRET], "texts": [SECRET], "inputs": [SECRET], "text_1": {SECRET: SECRET}},
    {"query": SECRET, "documents": [{SECRET: SECRET}], "rank_fields": [SECRET + "2"], "top_n": SECRET},
    {"inputs": [{"name": SECRET, "shape": [1], "datatype": SECRET, "data": [SECRET]}]},
    f'{{"query": "{SECRET}'.encode(),
]


@pytest.mark.parametrize("path", [*ERROR_KEYS, "/v1/rerank"])
def test_no_dialect_echoes_the_input(served: Served, path: str) -> None:
    """No error repeats what was sent, in its body or its headers."""
    for body in SECRETS:
        answer = _post(served, path, body)
        assert 400 <= answer.status < 500
        assert SECRET.encode() not in answer.body
        assert SECRET not in str(answer.headers)


FIELDS = [
    "query", "documents", "texts", "inputs", "outputs", "text_1", "text_2", "queries", "items", "data_1", "top_k",
    "top_n", "raw_scores", "return_documents", "return_text", "rank_fields", "use_activation", "parameters", "id",
]  # fmt: skip
REQUESTS = st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES | st.lists(st.text(max_size=9), max_size=4))
TENSOR = st.fixed_dictionaries(
    {"name": st.sampled_from(["query", "document"]), "datatype": st.just("BYTES")},
    optional={"shape": JSON_VALUES, "data": JSON_VALUES, "parameters": JSON_VALUES},
)


@settings(max_examples=400)
@given(
    path=st.sampled_from([*ERROR_KEYS, "/v1/rerank"]),
    body=(REQUESTS | st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=3)})).map(
        lambda value: json.dumps(value).encode()
    )
    | FRAGMENTS,
    length=st.none() | st.integers(0, 60),
)
def test_any_request_is_answered_or_refused(
    served: Served, path: str, body: bytes, length: int | None
) -> None:
    """Whatever arrives at whatever path, the answer is JSON with 200 or a 4xx, never a 5xx."""
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    answer = _post(served, path, body, **headers)

    assert answer.status in {200, 400, 404, 422}
    if answer.status != 200:
        assert len(answer.body) <= 512
    assert answer.json is not None
