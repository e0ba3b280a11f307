"""Tests of service/openapi.py."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.errors import Reason
from service.openapi import ELSEWHERE
from service.schema import RerankAnswer, RerankRequest
from tests.service.support import Served

SNAPSHOT = Path(__file__).parent / "openapi.json"


@pytest.fixture(scope="module")
def document(served: Served) -> Any:
    """The document that the service gives out."""
    return served.get("/openapi.json").json


def test_the_api_is_the_snapshot(document: Any) -> None:
    """A change of the API changes tests/service/openapi.json in the same commit.

    To renew it: curl -s 127.0.0.1:8000/openapi.json | python -m json.tool > tests/service/openapi.json
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

    assert set(answer) == set(RerankAnswer.__struct_fields__)
    assert set(served.post(next(iter(content["examples"].values()))["value"]).json) == set(answer)


def test_every_status_of_the_route_is_documented(document: Any) -> None:
    """The route lists each status that it may answer, with its codes."""
    responses = document["paths"]["/v1/rerank"]["post"]["responses"]

    for reason in Reason:
        if reason not in ELSEWHERE:
            assert reason.code in responses[str(reason.status)]["description"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_docs_page_shows_it(served: Served) -> None:
    """/docs is a page that reads /openapi.json."""
    answer = served.get("/docs")

    assert answer.headers["content-type"].startswith("text/html")
    assert b"/openapi.json" in answer.body
