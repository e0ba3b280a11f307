"""What /openapi.json says beyond the routes: the bodies and answers that it reads and writes.

Knows the types of the answers and the table of errors; does not know handlers.
Invariant: the schemas are generated from the very types that parse requests and write answers.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from pydantic.json_schema import models_json_schema

from service.api.answer import RerankAnswer
from service.api.schema import ErrorAnswer, RerankRequest
from service.app.explain import ExplainAnswer
from service.dialects.openai import ErrorObject
from service.errors import Reason
from service.rollout.models import Model, ModelList

DESCRIPTION: Final = "Ranks products for a shopper's query with a small cross-encoder."
_REF: Final = "#/components/schemas/{name}"
(_REQUEST, _ANSWER, _EXPLAINED, _ERROR, _ERROR_OBJECT), _COMPONENTS = msgspec.json.schema_components(
    (RerankRequest, RerankAnswer, ExplainAnswer, ErrorAnswer, ErrorObject), ref_template=_REF
)
_COMPONENTS["RerankRequest"]["additionalProperties"] = True  # unknown keys are ignored
_FACTS, _FACT_COMPONENTS = models_json_schema(
    [(Model, "serialization"), (ModelList, "serialization")], ref_template=_REF.format(name="{model}")
)

_BY_FIELD: Final = {
    "query": "wireless mouse",
    "documents": [
        {"id": "B01", "title": "Silent wireless mouse, 2.4 GHz", "brand": "Acme", "color": "black"},
        {"id": "B02", "title": "Mouse pad with wrist rest", "bullets": ["non-slip", "gel"]},
    ],
    "top_n": 1,
}
_AS_TEXT: Final = {"query": "wireless mouse", "documents": ["Silent wireless mouse", "Mouse pad"]}
_ANSWERED: Final = {
    "id": "7f1c9a3e5b2d4c6f8a0b1c2d3e4f5a6b",
    "model": "default@1",
    "bundle": "0123456789ab",
    "results": [{"index": 0, "id": "B01", "relevance_score": 0.931204, "label": "exact"}],
    "degraded": None,
    "coverage": 1.0,
    "usage": {"documents": 2, "tokens": 41, "truncated": 0, "cached": 0},
    "timings_ms": {"receive": 0.1, "parse": 0.1, "tokenize": 0.3, "queue": 0.1, "infer": 1.4, "total": 2.3},
}
ELSEWHERE: Final = {  # reasons that only other routes have
    Reason.ADMIN_LOCKED,
    Reason.LOADING,
    Reason.MALFORMED_HTTP,
    Reason.METHOD_NOT_ALLOWED,
    Reason.NO_CANDIDATE,
    Reason.NOT_FOUND,
    Reason.UNKNOWN_TRANSFER_CODING,
    Reason.UNPAIRED_TEXTS,
    Reason.UNSUPPORTED_OPTION,
    Reason.UNSCORED,
}
_RERANK_REASONS: Final = [reason for reason in Reason if reason not in ELSEWHERE]


def _json(schema: dict[str, Any], **extra: object) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema, **extra}}}


def _errors(reasons: Iterable[Reason] = _RERANK_REASONS, schema: dict[str, Any] = _ERROR) -> dict[str, Any]:
    """One response per status, naming the codes that it may carry."""
    codes: dict[int, list[str]] = {}
    for reason in sorted(reasons, key=lambda reason: reason.status):
        codes.setdefault(reason.status, []).append(reason.code)
    return {
        str(status): {"description": ", ".join(names), **_json(schema)} for status, names in codes.items()
    }


_BODY: Final = {
    "required": True,
    **_json(_REQUEST, examples={"by field": {"value": _BY_FIELD}, "as text": {"value": _AS_TEXT}}),
}
_OPERATIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("/v1/rerank", "post"): {
        "requestBody": _BODY,
        "responses": {"200": {"description": "Ranked", **_json(_ANSWER, example=_ANSWERED)}, **_errors()},
    },
    ("/v1/explain", "post"): {
        "requestBody": _BODY,
        "responses": {"200": {"description": "Explained", **_json(_EXPLAINED)}, **_errors()},
    },
    ("/v1/models", "get"): {
        "responses": {"200": {"description": "Listed", **_json(_FACTS[ModelList, "serialization"])}}
    },
    ("/v1/models/{model}", "get"): {
        "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": {"description": "Told", **_json(_FACTS[Model, "serialization"])},
            **_errors([Reason.MODEL_NOT_FOUND], _ERROR_OBJECT),
        },
    },
}


def with_schemas(generate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Extend FastAPI's generator, which knows the routes only, by what they read and write."""

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = {**_COMPONENTS, **_FACT_COMPONENTS["$defs"]}
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        for (path, method), operation in _OPERATIONS.items():
            document["paths"][path][method].update(operation)
        return document

    return openapi
