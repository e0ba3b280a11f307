"""Tests of service/app/rollout.py: admin calls on the second listener of an application in this process."""

import asyncio
import json
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bundle import read_bundle
from service import create_app
from service.settings import Settings
from tests.service.support import JSON, Answer, Served, exchange, is_documented_error, until
from tests.tiny import build_tiny

KEY = "k" * 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of one model in three versions, and one that is corrupt."""
    root = tmp_path_factory.mktemp("rollout")
    for number, name in enumerate(("one", "two", "three", "corrupt"), start=1):
        build_tiny(root, name, version=f"{number}", seed=number)
    graph = root / "corrupt" / "model.onnx"
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    return root


def serve(root: Path, **settings: Any) -> Served:
    """Bundle `one` behind an application."""
    return Served(create_app(Settings(models_root=root, bundle="one", workers=1, cache_bytes=0, **settings)))


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    """An application whose second listener is on loopback, without a key."""
    with serve(root) as application:
        yield application


def call(
    served: Served, method: str, path: str, body: object = None, headers: Mapping[str, str] = JSON
) -> Answer:
    """Make an admin call."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return served.run(exchange(served.app.state.admin, method, f"/admin/{path}", raw, headers))


def roles(answer: Answer) -> list[tuple[str, str]]:
    """Versions and their roles, as an admin call tells them."""
    assert answer.status == 200, answer.body
    return [(told["directory"], told["role"]) for told in answer.json["models"]]


def test_models_come_and_go(served: Served) -> None:
    """A canary and a shadow come in, the canary is promoted, the shadow leaves, and another bundle takes all."""
    told = [
        roles(call(served, "GET", "models")),
        roles(call(served, "POST", "canary", {"bundle": "two", "share": 0.25})),
        roles(call(served, "POST", "shadow", {"bundle": "three"})),
        roles(call(served, "POST", "canary/promote")),
        roles(call(served, "DELETE", "shadow")),
        roles(call(served, "POST", "reload", {"bundle": "one"})),
        roles(call(served, "POST", "reload")),
    ]

    assert told == [
        [("one", "stable")],
        [("one", "stable"), ("two", "canary")],
        [("one", "stable"), ("two", "canary"), ("three", "shadow")],
        [("two", "stable"), ("three", "shadow")],
        [("two", "stable")],
        [("one", "stable")],
        [("one", "stable")],
    ]


def test_what_is_told_of_a_newcomer(served: Served, root: Path) -> None:
    """A newcomer has its share, by default a tenth, and how it does; the stable model has neither."""
    stable, canary = call(served, "POST", "canary", {"bundle": "two"}).json["models"]

    assert canary == {
        "role": "canary", "model": "tiny@2", "bundle": read_bundle(root, "two").id, "directory": "two",
        "precision": "fp32", "share": 0.1, "answers": 0, "failing": 0.0, "lists": 0, "overlap_at_10": None,
        "kendall_tau": None, "score_difference": None,
    }  # fmt: skip
    assert (stable["model"], stable["share"], stable["lists"]) == ("tiny@1", None, None)


def test_the_public_list_and_the_metrics_follow(served: Served) -> None:
    """GET /v1/models has newcomers with their roles, a request can name one, and model_info tells of it."""
    call(served, "POST", "shadow", {"bundle": "two"})
    listed = served.get("/v1/models").json["data"]
    named = served.post({"query": "mug", "documents": ["mug"], "model": "tiny@2"}).json

    assert [("tiny@1", "stable"), ("tiny@2", "shadow")] == [(model["id"], model["role"]) for model in listed]
    assert served.get("/v1/models/tiny@2").json == listed[1]
    assert (named["model"], named["bundle"]) == ("tiny@2", listed[1]["bundle"])
    info = next(iter(served.app.state.metrics.served.collect())).samples
    assert [("1", "stable"), ("2", "shadow")] == [(one.labels["version"], one.labels["role"]) for one in info]


@pytest.mark.parametrize(("method", "path"), [("POST", "reload"), ("POST", "canary"), ("POST", "shadow")])
@pytest.mark.parametrize(
    ("bundle", "status", "code"),
    [
        ("corrupt", 422, "hash_mismatch"),
        ("absent", 404, "not_found"),
        ("../two", 422, "invalid_name"),
        ("", 422, "invalid_name"),
        ("two\u0000", 422, "invalid_name"),
    ],
)
def test_a_bundle_that_is_refused_is_told_by_its_code(  # noqa: PLR0913, PLR0917 - a table
    served: Served, method: str, path: str, bundle: str, status: int, code: str
) -> None:
    """The caller gets the step that failed; the old bundle serves on as if nothing had been."""
    before = served.post({"query": "mug", "documents": ["mug", "red shoe"]}).json
    answer = call(served, method, path, {"bundle": bundle})
    after = served.post({"query": "mug", "documents": ["mug", "red shoe"]}).json

    assert (status, code, ["bundle"]) == (answer.status, answer.json["error"], answer.json["loc"])
    assert set(answer.json) == {"error", "message", "detail", "loc", "id"}
    assert (before["bundle"], before["results"]) == (after["bundle"], after["results"])
    assert served.metric("shelfrank_reloads_total", result="failed") == 1
    assert roles(call(served, "GET", "models")) == [("one", "stable")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "canary", {}, 422, "invalid_field"),
        ("POST", "canary", {"bundle": "two", "share": 0}, 422, "invalid_field"),
        ("POST", "canary", {"bundle": "two", "share": 1.1}, 422, "invalid_field"),
        ("POST", "canary", {"bundle": "two", "share": "all"}, 422, "invalid_field"),
        ("POST", "canary", {"bundle": 2}, 422, "invalid_field"),
        ("POST", "canary", {"bundle": "two", "extra": 1}, 422, "unknown_field"),
        ("POST", "canary", b"", 400, "malformed_json"),
        ("POST", "reload", b"{", 400, "malformed_json"),
        ("POST", "reload", b'{"bundle": "' + b"x" * 5_000 + b'"}', 413, "body_too_large"),
        ("POST", "canary", {"bundle": "one"}, 409, "already_served"),
        ("POST", "canary/promote", None, 404, "no_newcomer"),
        ("DELETE", "canary", None, 404, "no_newcomer"),
        ("DELETE", "shadow", None, 404, "no_newcomer"),
        ("DELETE", "models", None, 405, "method_not_allowed"),
        ("GET", "reload", None, 405, "method_not_allowed"),
        ("POST", "nothing", None, 404, "not_found"),
    ],
)
def test_a_call_that_makes_no_sense(  # noqa: PLR0913, PLR0917 - a table
    served: Served, method: str, path: str, body: object, status: int, code: str
) -> None:
    """Each fault has its code, and changes nothing."""
    answer = call(served, method, path, body)

    assert (status, code) == (answer.status, answer.json["error"])
    assert roles(call(served, "GET", "models")) == [("one", "stable")]


def test_a_second_call_while_one_loads_is_refused(served: Served) -> None:
    """Whoever asks while a bundle is being loaded is told so, and the first one gets its answer."""
    admin = served.app.state.admin

    async def both() -> tuple[Answer, Answer]:
        first = asyncio.create_task(exchange(admin, "POST", "/admin/reload", b'{"bundle": "two"}', JSON))
        await until(lambda: bool(served.app.state.rollout.is_busy))
        return await exchange(admin, "POST", "/admin/reload", b"{}", JSON), await first

    second, first = served.run(both())

    assert (409, "loading") == (second.status, second.json["error"])
    assert roles(first) == [("two", "stable")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": f"Bearer {KEY}", "x-api-key": "other"}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}", "origin": "http://shop.example"}, 403),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - nothing is bound here
def test_a_key_that_is_set_has_to_be_shown(
    root: Path, host: str, headers: dict[str, str], status: int
) -> None:
    """With a key all calls want it, wherever the listener is, and no web page may call."""
    with serve(root, admin_host=host, admin_key=KEY) as served:
        answers = [
            call(served, method, path, headers=headers)
            for method, path in (("GET", "models"), ("POST", "reload"))
        ]

    assert [status] * 2 == [answer.status for answer in answers]
    assert status == 200 or all(map(is_documented_error, answers))


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("localhost", {}, 200),
        ("::1", {}, 200),
        ("127.0.0.1", {"origin": "null"}, 403),
        ("0.0.0.0", {}, 403),  # noqa: S104 - nothing is bound here
        ("10.0.0.7", {"authorization": "Bearer "}, 403),
        ("admin.internal", {}, 403),
    ],
)
def test_without_a_key_only_this_machine_may_call(
    root: Path, host: str, headers: dict[str, str], status: int
) -> None:
    """A second listener that others can reach answers no admin call without a key, but metrics and health as ever."""
    with serve(root, admin_host=host) as served:
        answer = call(served, "GET", "models", headers=headers)
        metrics = served.run(exchange(served.app.state.admin, "GET", "/metrics"))

    assert (status, 200) == (answer.status, metrics.status)
    assert status == 200 or (answer.json["error"] == "admin_locked" and is_documented_error(answer))


def test_admin_calls_are_not_public(served: Served) -> None:
    """The first listener has none of these paths."""
    for method, path in (("GET", "models"), ("POST", "reload"), ("DELETE", "canary")):
        assert served.run(exchange(served.app, method, f"/admin/{path}", b"{}", JSON)).status == 404


def test_an_idle_service_lets_a_model_go(served: Served) -> None:
    """After a reload that no request follows nothing holds the model before, not even the worker that ran it last."""
    served.post({"query": "mug", "documents": ["mug", "cup"]})
    versions = served.app.state.rollout._versions
    model = weakref.ref(versions.stable.model)
    call(served, "POST", "reload", {"bundle": "two"})
    served.run(until(lambda: model() is None))

    assert model() is None
