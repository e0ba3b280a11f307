"""Property tests of every path of both listeners: no bytes, wherever they are sent, make the service fail.

FUZZ_CASES=20000, as `make fuzz` sets it, asks for so many cases, and other ones each time.
"""

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import create_app
from service.errors import Reason
from service.settings import Settings
from tests.service.support import JSON, Answer, Served, exchange

IN_THE_SUITE = 2_000
CASES = int(os.environ.get("FUZZ_CASES", IN_THE_SUITE))
PAIR = {"query": "red shoes", "documents": ["red", {"id": "B01", "title": "mug", "bullets": ["a", "é"]}]}
SEEDS: dict[str, list[object]] = {
    "/": [{"inputs": [["red", "red shoes"]]}, {"query": "red", "texts": ["a"], "raw_scores": True}],
    "/rerank": [{"query": "red", "texts": ["a"]}, {"query": "red", "documents": ["a"], "raw_scores": True}],
    "/predict": [{"inputs": ["red", "red shoes"], "raw_scores": False}],
    "/score": [{"text_1": "red", "text_2": ["red shoes", "mug"]}],
    "/v1/rerank": [PAIR, {"query": "red", "documents": ["a"], "top_k": 1, "truncation": True}],
    "/v1/explain": [PAIR, {"query": "red", "documents": ["a"], "budget_ms": 0}],
    "/v1/ranking": [{"query": {"text": "red"}, "passages": [{"text": "a"}], "truncate": "END"}],
    "/v1/products": [{"products": [{"id": "B01", "title": "mug"}]}, {"ids": ["B01", 7]}],
    "/v2/models/{model}/infer": [
        {
            "inputs": [
                {"name": "query", "shape": [1], "datatype": "BYTES", "data": ["red"]},
                {"name": "document", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b"]]},
            ]
        }
    ],
    "/v2/repository/index": [{"ready": True}],
    "/admin/reload": [{"bundle": "tiny"}],
    "/admin/canary": [{"bundle": "tiny", "share": 0.5}],
}
NOT_UTF_8 = [b"\xff", b"\x80", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f"]
PIECES = [
    b"\xef\xbb\xbf",
    b"\x00",
    b"null",
    b"{}",
    b"[",
    b"]",
    b'"',
    b"\\ud800",
    b"1e999",
    b"-0",
    b"NaN",
    b",",
]
SPLICES = st.tuples(
    st.floats(0, 1),  # where, as a share of the body
    st.integers(0, 6),  # how many bytes are left out there
    st.sampled_from([*NOT_UTF_8, *PIECES, b"[" * 2_000, b"9" * 400]) | st.binary(max_size=8),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json;", "application/x-ndjson", "text/plain", ""]),
        "content-encoding": st.sampled_from(["gzip", "identity", "br", ""]),
        "inference-header-content-length": st.sampled_from(["0", "40", "9999", "x"]),
        "x-budget-ms": st.sampled_from(["0", "1", "-1", "nan", "x"]),
        "x-on-failure": st.sampled_from(["error", "degrade", "?"]),
    },
)
NAMES = st.sampled_from(["tiny", "B01", "1.0.0"]) | st.text(st.characters(codec="utf-8"), max_size=600)
DOCUMENTED = {reason.status for reason in Reason} - {Reason.INTERNAL.status}


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny bundle with all that there is: a catalogue, a cache and the admin calls."""
    catalogue = str(tmp_path_factory.mktemp("catalogue"))
    told = Settings(models_root=tiny_bundle, bundle="tiny", workers=1, catalogue=catalogue)
    with Served(create_app(told)) as application:
        yield application


def _routes(served: Served) -> list[tuple[Any, str, str]]:
    """Return every route of both listeners: its application, method and path."""
    both = (served.app, served.app.state.admin)
    return [
        (app, method, route.path)
        for app in both
        for route in app.routes
        for method in sorted(route.methods or ())
        if not route.path.startswith(("/docs", "/openapi"))
    ]


def _seeds(path: str) -> list[bytes]:
    return [json.dumps(seed, ensure_ascii=False).encode() for seed in SEEDS.get(path, [PAIR])]


def _check(route: tuple[Any, str, str], answer: Answer) -> None:
    assert answer.status < 500 or answer.status in DOCUMENTED, route[1:]


def _spliced(body: bytes, splices: list[tuple[float, int, bytes]]) -> bytes:
    for share, cause, put in splices:
        at = round(share * len(body))
        body = body[:at] + put + body[at + cause :]
    return body


@settings(max_examples=CASES, derandomize=CASES <= IN_THE_SUITE)
@given(data=st.data(), splices=st.lists(SPLICES, max_size=4), headers=HEADERS)
def test_no_bytes_make_any_path_fail(
    whole: Served, data: st.DataObject, splices: list[tuple[float, int, bytes]], headers: dict[str, str]
) -> None:
    """Requests of every API with bytes put in and left out get an answer or a documented error."""
    route = data.draw(st.sampled_from(_routes(whole)))
    body = _spliced(data.draw(st.sampled_from(_seeds(route[2]))), splices)
    if headers.get("content-encoding") == "gzip" and data.draw(st.booleans()):
        body = gzip.compress(body, 1)
    path = re.sub(r"\{[^}]*\}", lambda _: data.draw(NAMES), route[2])
    answer = whole.run(exchange(route[0], route[1], path, body, {**JSON, **headers}))

    _check(route, answer)


def test_bad_utf_8_is_refused_wherever_it_stands(whole: Served) -> None:
    """A byte that is no UTF-8, put at each place of a request of every API in turn, is refused as malformed."""
    for route in _routes(whole):
        app, method, path = route
        if method in {"GET", "HEAD"} or "{product" in path:
            continue  # these read no body
        for seed in _seeds(path):
            for at in range(len(seed) + 1):
                body = seed[:at] + b"\xff" + seed[at:]
                named = path.format(model="tiny", version="1.0.0")
                answer = whole.run(exchange(app, method, named, body, JSON))

                _check(route, answer)
                if "/admin/" not in path:
                    assert answer.status == 400, (path, at)
