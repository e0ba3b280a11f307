"""Tests of service/rollout/models.py and of the routes that list what is served."""

import dataclasses
import json
from pathlib import Path

import pytest

from bundle import Bundle, read_bundle
from service.errors import Reason
from service.rollout.models import Model, ModelList, describe_model, to_json
from tests.service.support import Served


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    """The tiny bundle."""
    return read_bundle(tiny_bundle, "tiny")


def test_clients_of_openai_can_list_the_model(served: Served) -> None:
    """The list has the keys that such a client reads, and its id is what answers and requests call the model."""
    answer = served.get("/v1/models")
    (model,) = answer.json["data"]

    assert (200, "application/json") == (answer.status, answer.headers["content-type"])
    assert ("list", "model") == (answer.json["object"], model["object"])
    assert (1_767_225_600, "shelfrank") == (model["created"], model["owned_by"])
    told = served.post({"query": "mug", "documents": ["mug"], "model": model["id"]}).json
    assert (model["id"], model["bundle"]) == (told["model"], told["bundle"])


def test_the_facts_are_the_manifests(served: Served, bundle: Bundle) -> None:
    """Text contract, labels, calibration, quality, gates and provenance are told as the manifest has them."""
    manifest = bundle.manifest
    (model,) = served.get("/v1/models").json["data"]
    stated = manifest.model_dump(mode="json")

    for name in ("name", "version", "text", "labels", "calibration", "quality", "gates", "provenance"):
        assert stated[name] == model[name]
    assert ("fp32", "fp32") == (model["precision"], model["default_precision"])
    (graph,) = model["graphs"]
    assert stated["files"]["model.onnx"] == {"sha256": graph["sha256"], "size": graph["size_bytes"]}
    assert {"rows": manifest.golden.rows, "tolerance": manifest.golden.tolerance} == model["golden"]


@pytest.mark.parametrize("name", ["tiny", "tiny@1.0.0"])
def test_one_model_is_the_lists(served: Served, name: str) -> None:
    """The model's own page, under its name with or without version, is its entry of the list."""
    one = served.get(f"/v1/models/{name}")

    assert one.status == 200
    assert [one.json] == served.get("/v1/models").json["data"]


@pytest.mark.parametrize("name", ["other", "tiny@2", "hunter2-secret", ".."])
def test_another_model_is_not_found(served: Served, name: str) -> None:
    """Any other name is a 404 in the shape that OpenAI's clients read, without an echo."""
    answer = served.get(f"/v1/models/{name}")

    assert 404 == answer.status
    assert answer.json == {
        "error": {
            "message": Reason.MODEL_NOT_FOUND.message,
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    }
    assert name.encode() not in answer.body


def test_no_file_is_named(served: Served, bundle: Bundle, tiny_bundle: Path) -> None:
    """Neither a file of the bundle nor the folder it lies in is in any answer."""
    body = served.get("/v1/models").body

    for name in (*bundle.files, *bundle.manifest.files, "manifest.json", str(tiny_bundle)):
        assert name.encode() not in body


def test_the_answer_is_prepared_once(served: Served) -> None:
    """Every request gets the very same bytes."""
    assert len({served.get("/v1/models").body for _ in range(3)}) == 1


def test_the_graph_that_is_served_is_named(bundle: Bundle) -> None:
    """The precision is that of the graph which runs; one that the bundle lacks is our own bug."""
    assert describe_model(bundle, "fp32").precision == "fp32"
    with pytest.raises(KeyError):
        describe_model(bundle, "int8")


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("1970-01-02T00:00:00Z", 86_400),
        ("1970-01-02T00:00:00", 86_400),
        ("1970-01-02T00:00:00+01:00", 82_800),
        ("1960-01-01T00:00:00Z", 0),
        ("last spring", 0),
        ("", 0),
    ],
)
def test_the_time_is_read_as_utc(bundle: Bundle, created: str, expected: int) -> None:
    """`created` is in Unix seconds, and 0 where the manifest holds no time."""
    provenance = bundle.manifest.provenance.model_copy(update={"created": created})
    manifest = bundle.manifest.model_copy(update={"provenance": provenance})

    assert expected == describe_model(dataclasses.replace(bundle, manifest=manifest), "fp32").created


def test_json_and_back(bundle: Bundle) -> None:
    """What is written can be read back into the same facts."""
    facts = describe_model(bundle, "fp32")

    assert facts == Model.model_validate_json(to_json(facts), strict=False)
    assert json.loads(to_json(ModelList(data=(facts,))))["data"] == [json.loads(to_json(facts))]
