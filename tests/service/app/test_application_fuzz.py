"""Property tests of service/app/application.py: whatever arrives gets an answer or a documented error."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.support import Served, is_documented_error

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["a", "text", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.lists(
    st.text() | st.dictionaries(st.sampled_from(["id", "title", "bullets", "x"]), JSON_VALUES)
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "query": st.text(min_size=1) | JSON_VALUES,
        "documents": DOCUMENTS | JSON_VALUES,
        "texts": JSON_VALUES,
        "top_n": st.integers() | JSON_VALUES,
        "return_documents": st.booleans() | JSON_VALUES,
        "model": JSON_VALUES,
    },
)
PIECES = rb"""
    { } [ ] , : " \ \ud800 \u0000 NaN -Infinity 1e999 null true 0 - "query" "documents" "a" {"text":"b"}
    {"query":"a","documents":[
""".split()
BYTES = [b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf0\x9f\x98\x80"]
FRAGMENTS = st.lists(st.sampled_from([*PIECES, *BYTES]), max_size=24).map(b"".join)


def _check(served: Served, body: bytes) -> None:
    answer = served.post(body)
    if answer.status == 200:
        told = answer.json
        assert len(told["results"]) <= told["usage"]["documents"]
        assert all(0 <= result["relevance_score"] <= 1 for result in told["results"])
    else:
        assert answer.status in {400, 404, 422}
        assert is_documented_error(answer)


@settings(max_examples=300)
@given(body=st.binary(max_size=300) | FRAGMENTS)
def test_any_bytes_give_an_answer_or_a_documented_error(served: Served, body: bytes) -> None:
    """Whatever bytes arrive, the answer is 200 or a short documented 4xx, never a 5xx."""
    _check(served, body)


@settings(max_examples=300)
@given(body=REQUESTS | JSON_VALUES)
def test_any_json_gives_an_answer_or_a_documented_error(served: Served, body: object) -> None:
    """Whatever JSON arrives, with NaN and lone surrogates too, the answer is 200 or a documented 4xx."""
    _check(served, json.dumps(body).encode())


@settings(max_examples=100)
@given(query=st.text(max_size=100), texts=st.lists(st.text(max_size=200), max_size=8))
def test_any_texts_are_ranked(served: Served, query: str, texts: list[str]) -> None:
    """Any query that is not blank and any texts get a permutation with scores."""
    answer = served.post({"query": query, "documents": texts})

    if query.strip():
        assert sorted(result["index"] for result in answer.json["results"]) == list(range(len(texts)))
        assert answer.json["coverage"] == 1.0
    else:
        assert answer.json["error"] == "blank_query"
