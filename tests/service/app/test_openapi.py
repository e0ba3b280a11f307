"""Tests of service/app/openapi.py."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.api.answer import RerankAnswer
from service.api.schema import RerankRequest
from service.app.openapi import ELSEWHERE
from service.errors import Reason
from service.rollout.models import Model
from tests.service.support import JSON, Served, exchange

SNAPSHOT = Path(__file__).parent / "openapi.json"


@pytest.fixture(scope="module")
def document(served: Served) -> Any:
    """The document that the service gives out."""
    return served.get("/openapi.json").json


def test_the_api_is_the_snapshot(document: Any) -> None:
    """A change of the API changes tests/service/app/openapi.json in the same commit.

    To renew it: curl -s 127.0.0.1:8000/openapi.json | python -m json.tool > tests/service/app/openapi.json
    """
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == document


def test_every_reference_resolves(document: Any) -> None:
    """Every $ref points to a schema that is there."""
    names = set(document["components"]["schemas"])
    references = [
        part.split('"')[0] for part in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]
    ]

    assert references
    assert set(references) <= names


def test_the_examples_are_true(document: Any, served: Served) -> None:
    """The request examples are answered, and the answer example is of the answer's type."""
    route = document["paths"]["/v1/rerank"]["post"]
    content = route["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        msgspec.convert(example["value"], RerankRequest)
        assert served.post(example["value"]).status == 200
    answer = route["responses"]["200"]["content"]["application/json"]["example"]

    required = {field.name for field in msgspec.structs.fields(RerankAnswer) if field.required}

    assert set(answer) == required
    assert set(served.post(next(iter(content["examples"].values()))["value"]).json) == set(answer)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/explain"])
def test_every_status_of_the_route_is_documented(document: Any, path: str) -> None:
    """The route lists each status that it may answer, with its codes."""
    responses = document["paths"][path]["post"]["responses"]

    for reason in Reason:
        if reason not in ELSEWHERE:
            assert reason.code in responses[str(reason.status)]["description"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_facts_of_a_model_are_described(document: Any, served: Served) -> None:
    """The schema of a model has the keys of the answer, and its own page lists its 404."""
    routes = document["paths"]
    schema = routes["/v1/models/{model}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    described = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]

    assert set(described["properties"]) == set(served.get("/v1/models/tiny").json) == set(Model.model_fields)
    assert "model_not_found" in routes["/v1/models/{model}"]["get"]["responses"]["404"]["description"]
    assert {"/v1/rerank", "/v1/explain", "/v1/models", "/v1/models/{model}"} <= set(routes)


def test_an_explanation_is_described(document: Any, served: Served) -> None:
    """The schema of an explanation has the keys of the answer, and of each of its documents."""
    schemas = document["components"]["schemas"]
    body = json.dumps({"query": "mug", "documents": [{"id": 1, "title": "mug"}], "unheard_of": 1}).encode()
    told = served.run(exchange(served.app, "POST", "/v1/explain", body, JSON)).json

    assert set(schemas["ExplainAnswer"]["properties"]) == set(told)
    assert set(schemas["DocumentExplained"]["properties"]) == set(told["documents"][0])
    assert set(schemas["TextExplained"]["properties"]) == set(told["query"])
    assert set(schemas["MicroTimings"]["properties"]) == set(told["timings_us"])


def test_the_docs_page_shows_it(served: Served) -> None:
    """/docs is a page that reads /openapi.json."""
    answer = served.get("/docs")

    assert answer.headers["content-type"].startswith("text/html")
    assert b"/openapi.json" in answer.body
