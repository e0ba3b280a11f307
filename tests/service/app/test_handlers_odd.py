"""Tests of service/app/handlers.py: requests that are odd, or name what nobody here knows, through ASGI."""

from pathlib import Path
from typing import Any

import pytest

from service import create_app
from service.settings import Settings, SettingsError
from tests.service.app.test_handlers import ERROR_KEYS, INFER, OWN_KEYS, _post, _scores
from tests.service.support import FakeSession, Served, fake_app

ODD = [
    {"documents": ["a"], "model": "rerank-v3.5"},
    {"documents": ["a"], "overlap_tokens": 0},
    {"documents": ["a"], "return_documents": None, "top_k": None, "truncation": None},
    {"documents": ["Mouse \ud83d", "Cable"]},
    {"documents": [{"title": "Mouse", "brand": 5, "category": ["Home", "Office"], "bullets": ["a", None]}]},
    {"documents": ["a" * 30_000]},
    {
        "documents": ["a", None, 5, {"price": 3}, {"title": 7, "text": None}],
        "model": None,
        "return_documents": True,
    },
    {"documents": ["a"] * 999 + [5]},
    {"documents": ["a"], "return_documents": "true", "return_len": "true", "top_n": "1", "model": "x"},
    {"documents": ["a"], "kwargs": "{}", "instruct": "x", "provider": {"order": []}, "truncate": "END"},
]


@pytest.mark.parametrize("fields", ODD)
def test_an_odd_request_is_ranked_whole(served: Served, fields: dict[str, Any]) -> None:
    """Whatever model, keys, nulls and documents clients and catalogues have, every document comes back."""
    answer = _post(served, "/v1/rerank", {"query": "mouse", **fields})

    assert answer.status == 200
    assert sorted(result["index"] for result in answer.json["results"]) == list(
        range(len(fields["documents"]))
    )


NULLS = ("top_n", "top_k", "return_documents", "raw_scores", "truncation", "rank_fields", "instruct", "model")


@pytest.mark.parametrize(
    "path",
    [path for path in ERROR_KEYS if "score" not in path and path not in {"/predict", "/v1/ranking", INFER}],
)
def test_what_is_odd_is_read_alike_in_every_dialect(served: Served, path: str) -> None:
    """A null is not given, a number is a text, and a place without a text is an empty one, at every path."""
    key = "texts" if path in {"/", "/rerank"} else "documents"
    body = {"query": 5, key: ["a", 5, None, "\ud83d"], **dict.fromkeys(NULLS)}
    own = _post(served, "/v1/rerank", {"query": "5", "documents": ["a", "5", "", "\ufffd"]}).json

    answer = _post(served, path, body)
    assert answer.status == 200
    assert _scores("/v1/rerank", own) == _scores(path, answer.json)


def test_odd_passages_are_ranked(served: Served) -> None:
    """NVIDIA's query and passages are objects, whose texts are mended as all others are."""
    body = {
        "query": {"text": 5},
        "passages": [{"text": 5}, {"text": None}, {"text": "\ud83d"}],
        "truncate": None,
    }

    answer = _post(served, "/v1/ranking", body)
    assert (200, 3) == (answer.status, len(answer.json["rankings"]))


def test_half_a_character_costs_no_tensor(served: Served) -> None:
    """The Open Inference Protocol's texts are mended as all others are."""
    tensors = [
        {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts, "parameters": None}
        for name, texts in (("query", ["red"]), ("document", ["a", "\ud83d"]))
    ]

    answer = _post(served, INFER, {"inputs": tensors, "outputs": None, "id": None})
    assert (200, 2) == (answer.status, len(answer.json["outputs"][0]["data"]))


@pytest.mark.parametrize(
    ("path", "dialect", "ignored"),
    [("/v1/rerank", "own", 2), ("/voyage/v1/rerank", "voyage", 2), ("/rerank", "infinity", 2)],
)
def test_keys_that_nobody_knows_are_counted(served: Served, path: str, dialect: str, ignored: int) -> None:
    """How many keys were ignored is counted by dialect; what others document is none of them."""
    body = {"query": "q", "documents": ["a"], "hunter2": 1, "budgetms": 5, "truncation": True, "other": None}
    before = served.metric("shelfrank_ignored_keys_total", dialect=dialect)
    assert _post(served, path, body).status == 200

    assert before + ignored == served.metric("shelfrank_ignored_keys_total", dialect=dialect)


def test_a_clipped_text_counts_as_truncated(tiny_bundle: Path) -> None:
    """What was past the server's limit is told as what is past the model's, be that limit larger or smaller."""
    with Served(fake_app(tiny_bundle, FakeSession(), max_field_chars=5)) as served:
        usage = _post(served, "/v1/rerank", {"query": "q", "documents": ["red shoes", "mug"]}).json["usage"]

    assert (2, 1) == (usage["documents"], usage["truncated"])


def test_aliases_are_known(tiny_bundle: Path) -> None:
    """A name that is configured for a model is that model's, also where unknown ones are refused."""
    settings = {"models_root": tiny_bundle, "bundle": "tiny", "workers": 1, "unknown_model": "refuse"}
    with Served(create_app(Settings(**settings, model_aliases="rerank-v3.5=tiny,b=tiny@1.0.0"))) as served:
        for name, status in (("rerank-v3.5", 200), ("b", 200), ("c", 404), ("tiny", 200)):
            answer = _post(served, "/v1/rerank", {"query": "q", "documents": ["a"], "model": name})
            assert status == answer.status
        assert served.get("/v1/models/rerank-v3.5").json["id"] == "tiny@1.0.0"
    with pytest.raises(SettingsError, match="model_aliases"):
        create_app(Settings(**settings, model_aliases="a=none"))


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/v1/rerank", OWN_KEYS),
        ("/v1/models", {"error"}),
        ("/cohere/v3/x", {"id", "message"}),
        ("/jina/v1/embeddings", {"detail"}),
        ("/voyage/v1/models", {"detail"}),
        ("/vllm/v1/models", {"error"}),
        ("/vllmx", OWN_KEYS),
    ],
)
def test_below_a_base_every_refusal_is_in_its_shape(
    tiny_bundle: Path, tmp_path: Path, path: str, keys: set[str]
) -> None:
    """Who has no key hears so in the words of the API that the path is below, be there anything or not."""
    ring = tmp_path / "keys"
    ring.write_text(f"shop {'0' * 64}\n", encoding="ascii")
    with Served(fake_app(tiny_bundle, FakeSession(), api_keys_file=str(ring))) as served:
        answer = served.get(path)

    assert (401, keys) == (answer.status, set(answer.json))
