"""Tests of service/dialects/kserve.py."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dialects.dialect import ScoringRequest
from service.dialects.kserve import model_metadata, parse_infer, render_error, server_metadata
from service.domain.ranking import LEAST
from service.errors import Reason, Refused
from tests.service.dialects.support import LIMITS, MANIFEST, TEXTS, scored, told


def _tensor(name: str, texts: list[object], **other: object) -> dict[str, object]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts, **other}


def _infer(*inputs: object, rest: bytes | None = None, **fields: object) -> ScoringRequest:
    body = json.dumps({"inputs": inputs, **fields}).encode()
    if rest is None:
        return parse_infer(body, LIMITS)
    return parse_infer(body + rest, LIMITS, json_bytes=len(body))


def _packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


QUERY = _tensor("query", ["red shoes"])
DOCUMENTS = _tensor("document", list(TEXTS))


def test_scores_and_labels_have_the_shape_of_the_documents() -> None:
    """Outputs stand in the order of the documents, and carry the model's name and the request's id."""
    nested = {**DOCUMENTS, "shape": [3, 1], "data": [[text] for text in TEXTS]}
    nested |= {"parameters": None}
    answer = told(_infer(QUERY, nested, id="7", parameters={"timeout": 20_000, "priority": 1}))

    assert ("tiny", "1.0.0", "7") == (answer["model_name"], answer["model_version"], answer["id"])
    assert [("score", "FP32", [3, 1]), ("label", "BYTES", [3, 1])] == [
        (output["name"], output["datatype"], output["shape"]) for output in answer["outputs"]
    ]
    assert ["irrelevant", "exact", "exact"] == answer["outputs"][1]["data"]
    assert 1 == max(range(3), key=answer["outputs"][0]["data"].__getitem__)


def test_only_what_is_wanted_comes_back() -> None:
    """The outputs of the request are the outputs of the answer, in its order."""
    answer = told(_infer(QUERY, DOCUMENTS, outputs=[{"name": "label", "parameters": {"binary_data": True}}]))

    assert ["label"] == [output["name"] for output in answer["outputs"]]
    assert "id" not in answer


def test_what_was_not_scored_has_no_label() -> None:
    """A document without a score has one below any that is computed, and an empty label."""
    outputs = told(_infer(QUERY, DOCUMENTS), scored([1.0, float("nan"), 2.0]))["outputs"]

    assert 0 < outputs[0]["data"][1] < LEAST
    assert "" == outputs[1]["data"][1]


def test_queries_pair_with_documents() -> None:
    """As many queries as documents are scored side by side, one goes with all."""
    queries = _tensor("query", ["a", "b", "b"])

    assert ["a", "b"] == [query for query, _ in _infer(DOCUMENTS, queries).groups]
    assert ["red shoes"] == [query for query, _ in _infer(DOCUMENTS, QUERY).groups]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5))
def test_binary_inputs_say_the_same(texts: list[str]) -> None:
    """Texts after the JSON, each with its length before it, are read like texts within it."""
    packed = _packed(*(text.encode() for text in texts))
    binary = {
        "name": "document",
        "shape": [len(texts), 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(packed)},
    }

    assert _infer(QUERY, binary, rest=packed).groups == _infer(QUERY, _tensor("document", [*texts])).groups


def _binary(size: object, count: int = 1) -> dict[str, object]:
    return {
        "name": "document",
        "shape": [count],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": size},
    }


@pytest.mark.parametrize(
    ("inputs", "rest", "loc"),
    [
        ([QUERY], None, ("inputs",)),
        ([QUERY, QUERY], None, ("inputs", 1, "name")),
        ([QUERY, {**DOCUMENTS, "name": "input_ids"}], None, ("inputs", 1, "name")),
        ([QUERY, {**DOCUMENTS, "datatype": "FP32"}], None, ("inputs", 1, "datatype")),
        ([QUERY, {**DOCUMENTS, "shape": [4]}], None, ("inputs", 1, "shape")),
        ([QUERY, {**DOCUMENTS, "shape": [3, 1, 1]}], None, ("inputs", 1, "shape")),
        ([QUERY, {**DOCUMENTS, "shape": [-3]}], None, ("inputs", 1, "shape", 0)),
        ([QUERY, {**DOCUMENTS, "data": [1, 2, 3]}], None, ("inputs", 1, "data", 0)),
        ([QUERY, {**DOCUMENTS, "data": None}], None, ("inputs", 1, "data")),
        ([QUERY, {**DOCUMENTS, "parameters": {"binary_data_size": 0}}], b"", ("inputs", 1, "parameters")),
        ([QUERY, DOCUMENTS], b"x", ("inputs",)),
        ([QUERY, _binary(9)], _packed(b"red"), ("inputs", 1, "parameters")),
        ([QUERY, _binary(-1)], _packed(b"red"), ("inputs", 1, "parameters")),
        ([QUERY, _binary("7")], _packed(b"red"), ("inputs", 1, "parameters")),
        ([QUERY, _binary(6)], _packed(b"red"), ("inputs", 1)),
        ([QUERY, _binary(3)], b"\x00\x00\x00", ("inputs", 1)),
        ([QUERY, _binary(5)], _packed(b"\xff"), ("inputs", 1)),
    ],
)
def test_a_wrong_tensor_is_refused(inputs: list[Any], rest: bytes | None, loc: tuple[object, ...]) -> None:
    """Names, types, shapes and bytes that do not fit are refused, with their place."""
    with pytest.raises(Refused) as caught:
        _infer(*inputs, rest=rest)

    assert (Reason.INVALID_FIELD, loc) == (caught.value.reason, caught.value.loc)


def test_other_faults_have_their_own_reasons() -> None:
    """Tensors that do not pair, and outputs that do not exist, are told apart."""
    for inputs, fields, reason in (
        ([_tensor("query", ["a", "b"]), DOCUMENTS], {}, Reason.UNPAIRED_TEXTS),
        ([_tensor("query", ["a", "b"]), _tensor("document", ["a"])], {}, Reason.UNPAIRED_TEXTS),
        ([QUERY, _tensor("document", ["a"] * 6)], {}, Reason.TOO_MANY_DOCUMENTS),
        ([QUERY, DOCUMENTS], {"outputs": [{"name": "logits"}]}, Reason.INVALID_FIELD),
        ([QUERY, DOCUMENTS], {"id": "x" * 257}, Reason.INVALID_FIELD),
    ):
        with pytest.raises(Refused) as caught:
            _infer(*inputs, **fields)
        assert reason is caught.value.reason


def test_the_metadata_names_what_infer_takes() -> None:
    """A client that reads the metadata knows the tensors."""
    metadata = model_metadata(MANIFEST)

    assert ("tiny", ["1.0.0"]) == (metadata["name"], metadata["versions"])
    assert [{"name": "query", "datatype": "BYTES", "shape": [-1]}] == metadata["inputs"][:1]  # type: ignore[index]
    assert {"name", "version", "extensions"} == set(server_metadata("1"))


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.INVALID_FIELD, 400),
        (Reason.MODEL_NOT_FOUND, 404),
        (Reason.OVERLOADED, 503),
        (Reason.NOT_READY, 503),
        (Reason.BODY_TOO_LARGE, 413),
    ],
)
def test_errors_are_one_text(reason: Reason, status: int) -> None:
    """The protocol's error has one key; statuses are Triton's."""
    told_status, body = render_error(reason, (), "r1")

    assert (status, {"error": reason.message}) == (told_status, json.loads(body))
