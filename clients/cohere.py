"""Cohere's own SDK: both versions of the API, each also asynchronously."""

import asyncio

import cohere

from clients.probe import MODEL, Ranking, Row, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """Version 1."""
    with cohere.Client("any", base_url=base) as opened:
        answer = opened.rerank(model=MODEL, query=query, documents=documents)
    return [(result.index, result.relevance_score) for result in answer.results]


def client_v2(base: str, query: str, documents: list[str]) -> Ranking:
    """Version 2."""
    with cohere.ClientV2("any", base_url=base) as opened:
        answer = opened.rerank(model=MODEL, query=query, documents=documents)
    return [(result.index, result.relevance_score) for result in answer.results]


def async_client(base: str, query: str, documents: list[str]) -> Ranking:
    """Version 1 on an event loop."""

    async def ask() -> Ranking:
        async with cohere.AsyncClient("any", base_url=base) as opened:
            answer = await opened.rerank(model=MODEL, query=query, documents=documents)
        return [(result.index, result.relevance_score) for result in answer.results]

    return asyncio.run(ask())


def async_client_v2(base: str, query: str, documents: list[str]) -> Ranking:
    """Version 2 on an event loop."""

    async def ask() -> Ranking:
        async with cohere.AsyncClientV2("any", base_url=base) as opened:
            answer = await opened.rerank(model=MODEL, query=query, documents=documents)
        return [(result.index, result.relevance_score) for result in answer.results]

    return asyncio.run(ask())


if __name__ == "__main__":
    report(
        Row("cohere ClientV2", "cohere", "base_url", "{url}", client_v2),
        Row("cohere ClientV2", "cohere", "base_url", "{url}/cohere", client_v2),
        Row("cohere AsyncClientV2", "cohere", "base_url", "{url}", async_client_v2),
        Row("cohere Client", "cohere", "base_url", "{url}", client),
        Row("cohere Client", "cohere", "base_url", "{url}/cohere", client),
        Row("cohere AsyncClient", "cohere", "base_url", "{url}/cohere", async_client),
    )
