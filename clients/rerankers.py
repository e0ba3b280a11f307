"""The library rerankers, through its providers whose address can be set."""

from functools import partial

from rerankers.models.api_rankers import APIRanker

from clients.probe import MODEL, Ranking, Row, by_text, report


def client(provider: str, base: str, query: str, documents: list[str]) -> Ranking:
    """One provider of APIRanker, whose url is the whole address."""
    ranked = APIRanker(MODEL, "any", provider, url=base).rank(query, documents)
    return by_text(documents, [(result.document.text, result.score) for result in ranked.results])


if __name__ == "__main__":
    paths = {
        "cohere": "/v1/rerank",
        "jina": "/v1/rerank",
        "voyage": "/voyage/v1/rerank",
        "text-embeddings-inference": "/rerank",
    }
    report(
        *(
            Row(
                f"rerankers APIRanker ({provider})",
                "rerankers",
                "url",
                "{url}" + path,
                partial(client, provider),
            )
            for provider, path in paths.items()
        )
    )
