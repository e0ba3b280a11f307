"""Haystack's ranker for Cohere."""

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker

from clients.probe import MODEL, Ranking, Row, by_text, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """Documents go in and come out with their scores."""
    ranker = CohereRanker(MODEL, api_key=Secret.from_token("any"), api_base_url=base)
    ranked = ranker.run(query=query, documents=[Document(content=text) for text in documents])["documents"]
    return by_text(documents, [(document.content, document.score) for document in ranked])


if __name__ == "__main__":
    report(Row("Haystack CohereRanker", "cohere-haystack", "api_base_url", "{url}", client))
