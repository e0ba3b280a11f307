"""Tests of service/app/application.py, through ASGI with the real tiny bundle; see also test_application_faults and test_application_fuzz."""

import json
from pathlib import Path

import pytest

from service.app.handlers import LOOP_PARSE_BYTES
from tests.service.support import JSON, FakeSession, Served, exchange, fake_app, is_documented_error

GOOD = {"query": "red shoes", "documents": ["coffee mug", "red running shoes", "red shoes"]}


def test_documents_come_back_ranked(served: Served) -> None:
    """The answer holds every document with score and label, best first, and what it cost."""
    answer = served.post(GOOD)
    told = answer.json

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert ["id", "model", "bundle", "results", "degraded", "coverage", "usage", "timings_ms"] == list(told)
    assert [2, 1, 0] == [result["index"] for result in told["results"]]
    assert all(set(result) == {"index", "relevance_score", "label"} for result in told["results"])
    assert ("tiny@1.0.0", None, 1.0) == (told["model"], told["degraded"], told["coverage"])
    assert (3, 0) == (told["usage"]["documents"], told["usage"]["truncated"])
    assert ["receive", "parse", "tokenize", "queue", "infer", "total"] == list(told["timings_ms"])
    assert told["timings_ms"]["total"] >= max(list(told["timings_ms"].values())[:-1])


def test_top_n_cuts_the_answer(served: Served) -> None:
    """top_n returns the best so many; one larger than the list returns all."""
    full = served.post(GOOD).json["results"]

    assert full[:2] == served.post({**GOOD, "top_n": 2}).json["results"]
    assert full == served.post({**GOOD, "top_n": 10**15}).json["results"]


def test_equal_documents_keep_their_order(served: Served) -> None:
    """Documents with one score come back in the order of the request."""
    results = served.post({"query": "red shoes", "documents": ["mug", "red shoes"] * 20}).json["results"]

    assert [*range(1, 40, 2), *range(0, 40, 2)] == [result["index"] for result in results]


def test_no_documents_give_no_results(served: Served) -> None:
    """An empty list is answered at once with an empty list."""
    told = served.post({"query": "red shoes", "documents": []}).json

    assert ([], 1.0, 0) == (told["results"], told["coverage"], told["usage"]["documents"])


@pytest.mark.parametrize("model", ["tiny", "tiny@1.0.0", None])
def test_the_served_model_may_be_named(served: Served, model: str | None) -> None:
    """The model's name, with or without its version, or null, is taken."""
    assert served.post({**GOOD, "model": model}).status == 200


OTHERS = ["", "tiny@2", "other", "../tiny", "tiny\u0000", "x" * 100_000]


@pytest.mark.parametrize("model", OTHERS)
def test_another_model_is_answered_by_the_one_that_is_served(served: Served, model: str) -> None:
    """Clients of others have to name a model of theirs; the answer says which one ranked."""
    answer = served.post({**GOOD, "model": model})

    assert (200, "tiny@1.0.0") == (answer.status, answer.json["model"])


@pytest.mark.parametrize("model", OTHERS)
def test_another_model_is_not_found_if_so_set(tiny_bundle: Path, model: str) -> None:
    """With unknown_model=refuse any other name is refused, and is never used as a path."""
    with Served(fake_app(tiny_bundle, FakeSession(), unknown_model="refuse")) as strict:
        answer = strict.post({**GOOD, "model": model})

        assert (404, "model_not_found", ["model"]) == (
            answer.status,
            answer.json["error"],
            answer.json["loc"],
        )
        assert [200, 200] == [strict.post({**GOOD, "model": name}).status for name in ("tiny", "tiny@1.0.0")]


def test_a_score_does_not_depend_on_the_list(served: Served) -> None:
    """The printed score of a pair is the same alone and among others, in any order."""
    texts = [f"{color} {thing}" for color in ("red", "blue", "black") for thing in ("shoes", "mug " * 9, "x")]
    listed = served.post({"query": "red shoes", "documents": texts}).json["results"]

    for result in listed:
        alone = served.post({"query": "red shoes", "documents": [texts[result["index"]]]}).json["results"][0]
        assert alone["relevance_score"] == result["relevance_score"]


def test_a_large_body_is_parsed_on_a_worker(served: Served) -> None:
    """Past the bound for the loop, bodies are answered, and refused, just the same."""
    text = "red shoes " * 800
    documents = [text] * (LOOP_PARSE_BYTES // len(text) + 1)

    assert served.post({"query": "red shoes", "documents": documents}).status == 200
    assert served.post({"query": "red shoes", "documents": [*documents, {}, 5]}).status == 200
    assert served.post({"query": "red shoes", "documents": [*documents, {"id": []}]}).json["loc"] == [
        "documents",
        len(documents),
        "id",
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/rerank/x", 404, "not_found"),
        ("GET", "/v1//rerank/", 405, "method_not_allowed"),
        ("HEAD", "/v1/rerank", 405, "method_not_allowed"),
        ("GET", "/livez/../metrics", 404, "not_found"),
        ("POST", "/v3/rerank", 404, "not_found"),
        ("GET", "/v1/rerank", 405, "method_not_allowed"),
        ("BREW", "/v1/rerank", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
    ],
)
def test_other_paths_and_methods_have_the_same_error_shape(
    served: Served, method: str, path: str, status: int, code: str
) -> None:
    """What is not routed gets the documented error, and 405 says what is allowed."""
    answer = served.run(exchange(served.app, method, path))

    assert (status, code) == (answer.status, answer.json["error"])
    assert is_documented_error(answer)
    assert (status == 405) == ("allow" in answer.headers)


def test_the_info_page_tells_what_is_served(served: Served) -> None:
    """GET / names the model, the bundle and its labels."""
    told = served.get("/").json

    assert told["model"] == "tiny@1.0.0"
    assert told["bundle"] == served.post(GOOD).json["bundle"]
    assert ["irrelevant", "complement", "substitute", "exact"] == told["labels"]


def test_a_body_past_the_cap_is_refused(tiny_bundle: Path) -> None:
    """Declared or streamed, a body past the cap gets 413; one that just fits is answered."""
    with Served(fake_app(tiny_bundle, FakeSession(), max_body_bytes=2_048)) as served:
        body = json.dumps(GOOD).encode()
        fitting, larger = body.ljust(2_048), body.ljust(2_049)

        assert served.post(fitting).status == 200
        assert served.post(larger).json["error"] == "body_too_large"
        assert served.post(b"", {**JSON, "content-length": "2049"}).json["error"] == "body_too_large"
        assert (
            served.run(exchange(served.app, "POST", "/v1/rerank", larger, JSON, chunk=1)).json["error"]
            == "body_too_large"
        )


@pytest.mark.parametrize("secret", ["hunter2-secret", "\U0001f600secret"])
def test_nothing_echoes_the_input(served: Served, secret: str) -> None:
    """No error of any kind repeats what was sent, in its body or its headers."""
    bodies: list[object] = [
        {"query": secret, "documents": [{"title": 1, "id": [1], secret: 1}]},
        {secret: 1, "query": " ", "documents": []},
        {"query": "a", "model": secret},
        {"query": "a", "documents": [], "top_n": secret},
        secret,
        f'{{"query": "{secret}'.encode(),
    ]
    answers = [served.post(body) for body in bodies]
    answers.append(served.post({}, {"content-type": "text/" + secret.encode("ascii", "ignore").decode()}))
    answers.append(served.get("/" + secret.encode("ascii", "ignore").decode()))

    for answer in answers:
        assert is_documented_error(answer)
        assert b"secret" not in answer.body
        assert "secret" not in str(answer.headers)


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ("", "https://shop.example", None),
        ("https://shop.example", "https://shop.example", "https://shop.example"),
        ("https://a.example,http://localhost:3000", "http://localhost:3000", "http://localhost:3000"),
        ("https://shop.example", "https://other.example", None),
        ("*", "https://other.example", "*"),
    ],
)
def test_pages_of_allowed_origins_may_call(
    tiny_bundle: Path, origins: str, origin: str, allowed: str | None
) -> None:
    """Without a setting no page of another origin may call; with one those that it names may."""
    with Served(fake_app(tiny_bundle, FakeSession(), cors_origins=origins)) as served:
        asked = {"origin": origin, **PREFLIGHT}
        preflight = served.run(exchange(served.app, "OPTIONS", "/v1/rerank", headers=asked))
        answer = served.post(GOOD, {**JSON, "origin": origin})

    assert [allowed, allowed] == [
        told.headers.get("access-control-allow-origin") for told in (preflight, answer)
    ]
    assert answer.status == 200
    assert (preflight.status == 200) == (allowed is not None)


def test_a_preflight_needs_no_key(tiny_bundle: Path, tmp_path: Path) -> None:
    """A browser asks without the key whether it may send it."""
    keys = tmp_path / "keys"
    keys.write_text("shop " + "0" * 64)
    settings = {"cors_origins": "https://shop.example", "api_keys_file": str(keys)}
    with Served(fake_app(tiny_bundle, FakeSession(), **settings)) as served:
        asked = {
            "origin": "https://shop.example",
            **PREFLIGHT,
            "access-control-request-headers": "authorization",
        }
        preflight = served.run(exchange(served.app, "OPTIONS", "/v1/rerank", headers=asked))
        answer = served.post(GOOD, {**JSON, "origin": "https://shop.example"})

    assert (200, 401) == (preflight.status, answer.status)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
