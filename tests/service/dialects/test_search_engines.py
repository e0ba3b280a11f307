"""What search engines read of our answers, said as lookups; each test names the source that it follows.

Knows the parsers of Elasticsearch and OpenSearch; they are Java, so they are told here and not run.
Invariant: a lookup fails wherever the engine's own parser would throw.
"""

import json
from typing import Any

import pytest

from tests.service.support import JSON, Answer, FakeSession, Served, exchange, fake_app

TEXTS = ["coffee mug", "red running shoes", "red shoes", ""]


def _post(served: Served, path: str, body: object) -> Answer:
    answer = served.run(exchange(served.app, "POST", path, json.dumps(body).encode(), JSON))

    assert answer.status == 200
    return answer


def _all(path: str, answer: Any) -> list[Any]:
    """Look up a JSONPath of names, `.` and `[*]`, as Elasticsearch's MapPathExtractor does."""
    found = [answer]
    for step in path.removeprefix("$.").replace("[*]", ".*").split("."):
        found = [inner for value in found for inner in (value if step == "*" else [value[step]])]
    return found


def test_elasticsearch_custom_service(served: Served) -> None:
    """The paths of docs/api.md find as many numbers and indices as there are documents.

    Source: x-pack inference, services/custom/response/RerankResponseParser.java and BaseCustomResponseParser.java:
    all lists have the same length, scores are Numbers, indices are Numbers, texts are Strings.
    """
    body = {"query": "red shoes", "documents": TEXTS, "return_documents": True}
    answer = _post(served, "/v1/rerank", body).json
    scores = _all("$.results[*].relevance_score", answer)
    indices = _all("$.results[*].index", answer)

    assert all(type(score) is float for score in scores)
    assert all(type(index) is int for index in indices)
    assert sorted(indices) == list(range(len(TEXTS)))
    assert [TEXTS[index] for index in indices] == _all("$.results[*].document.text", answer)


@pytest.mark.parametrize(
    "options",
    [{}, {"return_documents": True}, {"top_n": 2}, {"return_documents": False, "max_chunks_per_doc": 3}],
)
def test_elasticsearch_hugging_face_service(served: Served, options: dict[str, object]) -> None:
    """The request of that service, sent to the root, gets a bare array of objects without an unknown field.

    Sources: x-pack inference, services/huggingface/request/rerank/HuggingFaceRerankRequestEntity.java (documents,
    query, return_documents, top_n) and response/HuggingFaceRerankResponseEntity.java, which throws on any field but
    index (int), score or relevance_score (float), text (String) and document (an object).
    """
    answer = _post(served, "/", {"documents": TEXTS, "query": "red shoes", **options}).json

    assert isinstance(answer, list)
    assert len(answer) == options.get("top_n", len(TEXTS))
    for ranked in answer:
        assert set(ranked) <= {"index", "score", "relevance_score", "text", "document"}
        assert type(ranked["index"]) is int
        assert type(ranked["score"]) is float
        assert ranked.get("text", TEXTS[ranked["index"]]) == TEXTS[ranked["index"]]


def test_elasticsearch_hugging_face_errors(served: Served) -> None:
    """The error of that service is a text under `error`.

    Source: x-pack inference, services/huggingface/response/HuggingFaceErrorResponseEntity.java, which casts it to
    String.
    """
    answer = served.run(exchange(served.app, "POST", "/", b'{"query":" ","documents":[]}', JSON))

    assert type(answer.json["error"]) is str


@pytest.mark.parametrize("model", [{}, {"model": "tiny"}])
def test_opensearch_connector(served: Served, model: dict[str, str]) -> None:
    """The request of the Cohere blueprint gets an Integer and a Double for every document.

    Source: ml-commons, common/.../functions/postprocess/CohereRerankPostProcessFunction.java, which allocates as many
    scores as there are results and casts `index` to Integer and `relevance_score` to Double.
    """
    body = {"documents": TEXTS, "query": "red shoes", "top_n": len(TEXTS), **model}
    raw = _post(served, "/v1/rerank", body)
    results = raw.json["results"]
    scores: list[float | None] = [None] * len(results)
    for result in results:
        assert type(result["index"]) is int
        assert type(result["relevance_score"]) is float
        scores[result["index"]] = result["relevance_score"]

    assert len(scores) == len(TEXTS)
    assert None not in scores


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/"])
def test_a_score_of_zero_is_still_a_double(tiny_bundle: Any, path: str) -> None:
    """Where nothing was scored each document still has a score, written with a dot."""
    broken = FakeSession(nonfinite=lambda row: True)  # noqa: ARG005 - whatever the row is
    with Served(fake_app(tiny_bundle, broken)) as served:
        raw = _post(served, path, {"documents": TEXTS, "query": "red shoes"}).body

    assert raw.count(b'score":0.000000') == len(TEXTS)
