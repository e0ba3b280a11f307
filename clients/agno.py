"""Agno's reranker for Cohere, which takes a client of Cohere's SDK."""

from agno.knowledge.document import Document
from agno.knowledge.reranker.cohere import CohereReranker
from cohere import Client

from clients.probe import MODEL, Ranking, Row, by_text, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """Documents go in and come out with their scores."""
    reranker = CohereReranker(model=MODEL, cohere_client=Client("any", base_url=base))
    ranked = reranker.rerank(query, [Document(content=text) for text in documents])
    return by_text(documents, [(document.content, document.reranking_score) for document in ranked])


if __name__ == "__main__":
    report(Row("Agno CohereReranker", "agno", "base_url", "{url}/cohere", client))
