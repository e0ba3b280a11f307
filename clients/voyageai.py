"""Voyage's own SDK, also asynchronously."""

import asyncio

import voyageai

from clients.probe import Ranking, Row, report

MODEL = "rerank-2.5"


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """As Voyage's page has it, without top_k."""
    answer = voyageai.Client("any", base_url=base).rerank(query, documents, model=MODEL)
    return [(result.index, result.relevance_score) for result in answer.results]


def async_client(base: str, query: str, documents: list[str]) -> Ranking:
    """The same on an event loop, with top_k."""
    opened = voyageai.AsyncClient("any", base_url=base)
    answer = asyncio.run(opened.rerank(query, documents, model=MODEL, top_k=len(documents)))
    return [(result.index, result.relevance_score) for result in answer.results]


if __name__ == "__main__":
    report(
        Row("voyageai Client", "voyageai", "base_url", "{url}/v1", client),
        Row("voyageai Client", "voyageai", "base_url", "{url}/voyage/v1", client),
        Row("voyageai AsyncClient", "voyageai", "base_url", "{url}/v1", async_client),
    )
