"""Real clients against a real process; one that is not installed is skipped.

Knows how each client is pointed at an address; does not know the shapes that go over it.
Invariant: a client gets the order and the scores that our own API gives for the same texts.
"""

import importlib.util
import json
import urllib.request

import pytest

from tests.service.support import JSON, WAIT_S, Process

QUERY = "red shoes"
TEXTS = ["coffee mug", "red running shoes", "red shoes"]
ORDER = [2, 1, 0]
FOREIGN_MODEL = "rerank-v3.5"


def _needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"the client {module} is not installed"
    )


@pytest.fixture(scope="module")
def url(process: Process) -> str:
    """Where the real process listens."""
    return f"http://127.0.0.1:{process.port}"


@pytest.fixture(scope="module")
def scores(url: str) -> list[float]:
    """The scores of TEXTS, in their order, by our own API."""
    body = json.dumps({"query": QUERY, "documents": TEXTS}).encode()
    request = urllib.request.Request(f"{url}/v1/rerank", body, JSON)  # noqa: S310 - our own process
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310 - as above
        results = json.load(answer)["results"]
    by_index = {result["index"]: result["relevance_score"] for result in results}
    return [by_index[index] for index in range(len(TEXTS))]


@_needs("cohere")
class TestCohere:
    """Cohere's SDK, versions 1 and 2 of the API."""

    @pytest.mark.parametrize("documents", [TEXTS, [{"text": text} for text in TEXTS]])
    def test_version_1(self, url: str, scores: list[float], documents: list[str]) -> None:
        """The old client ranks texts and maps, and returns documents."""
        import cohere  # noqa: PLC0415 - where it is installed

        with cohere.Client("key", base_url=f"{url}/cohere") as client:
            answer = client.rerank(
                model=FOREIGN_MODEL, query=QUERY, documents=documents, return_documents=True
            )

        assert [(index, scores[index], TEXTS[index]) for index in ORDER] == [
            (result.index, result.relevance_score, result.document.text) for result in answer.results
        ]
        assert (1, "1") == (answer.meta.billed_units.search_units, answer.meta.api_version.version)

    @pytest.mark.parametrize("base", ["", "/cohere"])
    def test_version_2(self, url: str, scores: list[float], base: str) -> None:
        """The new client needs no path of its own."""
        import cohere  # noqa: PLC0415 - as above

        with cohere.ClientV2("key", base_url=url + base) as client:
            answer = client.rerank(model=FOREIGN_MODEL, query=QUERY, documents=TEXTS, top_n=2)

        assert [(index, scores[index]) for index in ORDER[:2]] == [
            (result.index, result.relevance_score) for result in answer.results
        ]

    def test_our_own_path(self, url: str) -> None:
        """At /v1/rerank the old client is understood too, whatever model it names."""
        import cohere  # noqa: PLC0415 - as above

        maps = [{"title": text} for text in TEXTS]
        with cohere.Client("key", base_url=url) as client:
            chosen = client.rerank(
                model="tiny", query=QUERY, documents=maps, rank_fields=["title"], max_chunks_per_doc=1
            )
            plain = client.rerank(model=FOREIGN_MODEL, query=QUERY, documents=TEXTS)

        assert [result.index for result in chosen.results] == ORDER
        assert [result.index for result in plain.results] == ORDER

    def test_errors(self, url: str) -> None:
        """A refusal becomes the SDK's own exception, with the message."""
        import cohere  # noqa: PLC0415 - as above

        with (
            cohere.ClientV2("key", base_url=url) as client,
            pytest.raises(cohere.UnprocessableEntityError) as caught,
        ):
            client.rerank(model=FOREIGN_MODEL, query=" ", documents=TEXTS)

        assert caught.value.body["message"].startswith("The query is blank.")


@_needs("rerankers")
@pytest.mark.parametrize(
    ("provider", "path", "model"),
    [
        ("cohere", "/cohere/v1/rerank", FOREIGN_MODEL),
        ("cohere", "/v2/rerank", FOREIGN_MODEL),
        ("jina", "/jina/v1/rerank", FOREIGN_MODEL),
        ("jina", "/v1/rerank", "tiny"),
        ("jina", "/v1/rerank", FOREIGN_MODEL),
        ("cohere", "/v1/rerank", FOREIGN_MODEL),
        ("voyage", "/v1/rerank", FOREIGN_MODEL),
        ("voyage", "/voyage/v1/rerank", FOREIGN_MODEL),
        ("text-embeddings-inference", "/rerank", FOREIGN_MODEL),
    ],
)
def test_rerankers(url: str, scores: list[float], provider: str, path: str, model: str) -> None:
    """The library `rerankers` ranks through each of its providers that we speak."""
    from rerankers.models.api_rankers import APIRanker  # noqa: PLC0415 - where it is installed

    ranked = APIRanker(model, "key", provider, url=url + path).rank(QUERY, TEXTS)

    assert [(TEXTS[index], scores[index]) for index in ORDER] == [
        (result.document.text, result.score) for result in ranked.results
    ]


@_needs("huggingface_hub")
@pytest.mark.parametrize("path", ["", "/predict"])
def test_hugging_face(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """InferenceClient's text classification takes a pair, and gives its classes."""
    from huggingface_hub import InferenceClient, constants  # noqa: PLC0415 - where it is installed

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # what it asks is our own process
    classes = InferenceClient(model=url + path).text_classification([[QUERY, TEXTS[2]]])  # type: ignore[arg-type]

    assert ["exact", "substitute", "complement", "irrelevant"] == [found.label for found in classes]


@_needs("voyageai")
@pytest.mark.parametrize("base", ["/v1", "/voyage/v1"])
@pytest.mark.parametrize("top_k", [2, None])
def test_voyage(url: str, scores: list[float], base: str, top_k: int | None) -> None:
    """Voyage's SDK ranks at the shared path and at its own, and reads the cost and the errors."""
    import voyageai  # noqa: PLC0415 - where it is installed

    client = voyageai.Client("key", base_url=url + base)
    answer = client.rerank(QUERY, TEXTS, model="rerank-2.5", top_k=top_k)

    assert [(index, scores[index]) for index in ORDER[:top_k]] == [
        (result.index, result.relevance_score) for result in answer.results
    ]
    assert answer.total_tokens > 0
    with pytest.raises(
        (voyageai.error.InvalidRequestError, voyageai.error.MalformedRequestError), match="query is blank"
    ):
        client.rerank(" ", TEXTS, model="rerank-2.5")


@_needs("tritonclient")
@pytest.mark.parametrize("binary", [True, False])
def test_triton(url: str, scores: list[float], binary: bool) -> None:  # noqa: FBT001
    """Triton's client finds server and model, and infers with texts in binary form or in JSON."""
    import numpy as np  # noqa: PLC0415 - with the next
    import tritonclient.http as triton  # noqa: PLC0415 - where it is installed

    client = triton.InferenceServerClient(url.removeprefix("http://"))
    tensors = []
    for name, texts in (("query", [QUERY]), ("document", TEXTS)):
        tensor = triton.InferInput(name, [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text] for text in texts], dtype=object), binary_data=binary)
        tensors.append(tensor)
    answer = client.infer("tiny", tensors, request_id="7")

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny", "1.0.0")
    assert not client.is_model_ready("other")
    assert answer.as_numpy("score").ravel() == pytest.approx(scores)
    assert answer.as_numpy("label").shape == (3, 1)
    assert ["tiny"] == [model["name"] for model in client.get_model_repository_index()]
    assert ["query", "document"] == [tensor["name"] for tensor in client.get_model_config("tiny")["input"]]
    for statistics in (client.get_inference_statistics(), client.get_inference_statistics("tiny", "1.0.0")):
        assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] > 0
    client.close()
