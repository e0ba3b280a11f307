"""Tests of service/app/paths.py, and of the paths themselves."""

import gzip
import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from service.app.paths import FOREIGN, RERANK_TOO, error_renderer_at
from service.dialects import cohere, kserve, nvidia, shared, tei, vllm
from service.dialects.dialect import RenderError
from tests.service.support import JSON, WAIT_S, FakeSession, Process, Served, exchange, fake_app

PAIR = {"model": "any", "query": "red shoes", "documents": ["coffee mug", "red shoes"]}
BODIES = {
    "/predict": {"inputs": [["red shoes", "coffee mug"], ["red shoes", "red shoes"]]},
    "/v1/ranking": {"model": "any", "query": {"text": "red shoes"}, "passages": [{"text": "red shoes"}]},
    **{path: {"text_1": "red shoes", "text_2": ["mug"]} for path in FOREIGN if path.endswith("score")},
}


@pytest.mark.parametrize("path", FOREIGN)
def test_each_path_is_answered(served: Served, path: str) -> None:
    """Every path of another API answers its request, also with slashes too many."""
    body = json.dumps(BODIES.get(path, PAIR)).encode()
    written = [path, path + "/", path.replace("/", "//")]
    answers = [served.run(exchange(served.app, "POST", each, body, JSON)) for each in written]

    assert [200, 200, 200] == [answer.status for answer in answers]


@pytest.mark.parametrize("path", RERANK_TOO)
def test_other_names_of_rerank_are_the_same(served: Served, path: str) -> None:
    """llama.cpp's paths give the answer of /v1/rerank, and refuse in its shape."""
    body = json.dumps({**PAIR, "model": None}).encode()
    told, refused = (
        served.run(exchange(served.app, "POST", path, each, JSON)) for each in (body, b'{"query": " "}')
    )

    assert served.post(body).json["results"] == told.json["results"]
    assert {"error", "message", "loc", "id"} <= set(refused.json)


@pytest.mark.parametrize(
    ("method", "path", "render_error"),
    [
        ("POST", "/", tei.render_error),
        ("GET", "/", shared.render_error),
        ("POST", "/vllm/v2/rerank", vllm.render_error),
        ("POST", "/cohere/v2/v2/rerank", cohere.render_error),
        ("POST", "/v1/ranking", nvidia.render_error),
        ("POST", "/v2/rerank", cohere.render_error),
        ("GET", "/v2/models/x/config", kserve.render_error),
        ("GET", "/v2nd", shared.render_error),
        ("POST", "/v1/reranking", shared.render_error),
    ],
)
def test_a_path_says_how_it_refuses(method: str, path: str, render_error: RenderError) -> None:
    """Whose a path is, its refusals tell."""
    assert error_renderer_at(path, method) is render_error


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_packed_body_is_answered(served: Served, coding: str) -> None:
    """Every path takes gzip; a mark of the byte order and a loose content type are nothing."""
    raw = b"\xef\xbb\xbf" + json.dumps({**PAIR, "model": None}).encode()
    headers = {"content-type": "application/json; charset=utf8;", "content-encoding": coding}

    assert served.post(gzip.compress(raw) if coding == "gzip" else raw, headers).status == 200


def test_a_packed_feed_is_stored(tiny_bundle: Path, tmp_path: Path) -> None:
    """Lines of products may come packed and behind a mark of the byte order, as some systems write files."""
    feed = b'\xef\xbb\xbf{"id": "B01", "title": "Mouse"}\r\n{"id": "B02", "title": "Pad"}\r\n'
    headers = {"content-type": "application/x-ndjson;", "content-encoding": "gzip"}
    with Served(fake_app(tiny_bundle, FakeSession(), catalogue=str(tmp_path))) as served:
        answer = served.run(exchange(served.app, "PUT", "/v1/products/", gzip.compress(feed), headers))

    assert {"stored": 2, "unchanged": 0} == answer.json


def _head_and_get(port: int, path: str) -> tuple[Any, Any, bytes]:
    """Ask HEAD and then GET for one path on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        told = []
        for method in ("HEAD", "GET"):
            connection.request(method, path)
            answer = connection.getresponse()
            told.append((answer.status, answer.getheader("content-type"), body := answer.read()))
        return told[0], told[1][:2], body
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/health", "/v1/models", "/info", "/v2", "/openapi.json", "/x"]
)
def test_head_is_get_without_a_body(process: Process, path: str) -> None:
    """HEAD gets the status and the type of GET on the public port, no body, and the connection goes on."""
    head, get, body = _head_and_get(process.port, path)

    assert ((*get, b""), True) == (head, bool(body))


@pytest.mark.parametrize("path", ["/livez", "//health/", "/metrics", "/admin/models"])
def test_head_is_get_on_the_admin_port(process: Process, path: str) -> None:
    """And so it is on the other port."""
    head, get, body = _head_and_get(process.admin_port, path)

    assert ((*get, b""), 200, True) == (head, get[0], bool(body))
