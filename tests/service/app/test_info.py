"""Tests of service/app/info.py, through ASGI with the real tiny bundle."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.support import JSON, Answer, FakeSession, Served, exchange, fake_app

GOOD = {"query": "red shoes", "documents": ["coffee mug", "red shoes"]}


def _index(served: Served, body: bytes = b"") -> Answer:
    return served.run(exchange(served.app, "POST", "/v2/repository/index", body))


def test_info_is_that_of_tei(served: Served) -> None:
    """/info says what text-embeddings-inference says of a reranker."""
    told = served.get("/info").json

    assert "tiny@1.0.0" == told["model_id"]
    assert ["irrelevant", "exact"] == [told["model_type"]["reranker"]["id2label"][key] for key in ("0", "3")]
    assert 3 == told["model_type"]["reranker"]["label2id"]["exact"]
    assert (1_000, True) == (told["max_client_batch_size"], told["auto_truncate"])
    assert 1 <= told["max_concurrent_requests"] <= told["max_batch_tokens"]
    assert 2 == told["tokenization_workers"]


def test_version_is_that_of_vllm(served: Served) -> None:
    """/version has one key."""
    assert {"version": served.app.version} == served.get("/version").json


def test_health_is_that_of_others(tiny_bundle: Path) -> None:
    """/health is green while requests should be sent here, and says the time as infinity does."""
    with Served(fake_app(tiny_bundle, FakeSession())) as served:
        green = served.get("/health")
        served.app.state.lifecycle.drain()
        red = served.get("/health")

    assert (200, "ok") == (green.status, green.json["status"])
    assert abs(time.time() - green.json["unix"]) < 600
    assert (503, "not_ready") == (red.status, red.json["error"])


def test_the_repository_lists_what_is_served(tiny_bundle: Path) -> None:
    """The index names every model and whether it is ready; those that are not can be left out."""
    with Served(fake_app(tiny_bundle, FakeSession())) as served:
        ready = _index(served)
        served.app.state.lifecycle.drain()
        draining, only_ready = _index(served, b"{}"), _index(served, b'{"ready": true}')

    assert [{"name": "tiny", "version": "1.0.0", "state": "READY", "reason": ""}] == ready.json
    assert ["UNAVAILABLE"] == [model["state"] for model in draining.json]
    assert [] == only_ready.json


@pytest.mark.parametrize("body", [b"{", b'{"ready": 1}', b"[]"])
def test_a_wrong_index_request_is_refused_as_the_protocol_does(served: Served, body: bytes) -> None:
    """The error is the protocol's one text."""
    answer = _index(served, body)

    assert (400, {"error"}) == (answer.status, set(answer.json))


@pytest.mark.parametrize("path", ["/v2/models/tiny/config", "/v2/models/tiny/versions/1.0.0/config"])
def test_the_configuration_says_what_the_metadata_says(served: Served, path: str) -> None:
    """Triton's configuration has the same tensors as the metadata, in its own words."""
    told, metadata = served.get(path).json, served.get("/v2/models/tiny").json

    assert (metadata["name"], metadata["platform"], 0) == (
        told["name"],
        told["platform"],
        told["max_batch_size"],
    )
    for kind in ("input", "output"):
        assert [(tensor["name"], tensor["shape"]) for tensor in metadata[f"{kind}s"]] == [
            (tensor["name"], tensor["dims"]) for tensor in told[kind]
        ]
    assert ["TYPE_FP32", "TYPE_STRING"] == [tensor["data_type"] for tensor in told["output"]]


@pytest.mark.parametrize(
    "path", ["/v2/models/stats", "/v2/models/tiny/stats", "/v2/models/tiny/versions/1.0.0/stats"]
)
def test_statistics_count_what_a_model_was_asked(served: Served, path: str) -> None:
    """Each answer is an execution, each of its documents an inference, and their times add up."""

    def told() -> Any:
        (stats,) = served.get(path).json["model_stats"]
        return stats

    before = told()
    assert served.post(GOOD).status == 200
    after = told()
    new = {key: after[key] - before[key] for key in ("inference_count", "execution_count")}
    spent = {
        stage: after["inference_stats"][stage]["ns"] - before["inference_stats"][stage]["ns"]
        for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output", "fail")
    }

    assert {"inference_count": 2, "execution_count": 1} == new
    assert after["last_inference"] > 1_600_000_000_000
    assert spent["success"] >= spent["compute_infer"] >= 0 == spent["fail"]
    assert ("tiny", "1.0.0") == (after["name"], after["version"])


@pytest.mark.parametrize(
    "path", ["/v2/models/x/config", "/v2/models/x/stats", "/v2/models/tiny/versions/2/stats"]
)
def test_other_models_are_not_found(served: Served, path: str) -> None:
    """A model or version that is not served is 404 in the protocol's shape."""
    answer = served.run(exchange(served.app, "GET", path, headers=JSON))

    assert (404, {"error"}) == (answer.status, set(answer.json))
