"""LangChain's rerankers: Cohere's, Voyage's, NVIDIA's, and Infinity's of langchain-community."""

from infinity_client import Client
from langchain_cohere import CohereRerank
from langchain_community.document_compressors.infinity_rerank import InfinityRerank
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_nvidia_ai_endpoints import NVIDIARerank
from langchain_voyageai import VoyageAIRerank

from clients.probe import MODEL, Ranking, Row, by_text, report


def cohere(base: str, query: str, documents: list[str]) -> Ranking:
    """langchain-cohere."""
    made = CohereRerank(cohere_api_key="any", base_url=base, model=MODEL, top_n=len(documents))
    return _compress(made, query, documents)


def voyage(base: str, query: str, documents: list[str]) -> Ranking:
    """langchain-voyageai."""
    return _compress(VoyageAIRerank(api_key="any", base_url=base, model="rerank-2.5"), query, documents)


def infinity(base: str, query: str, documents: list[str]) -> Ranking:
    """langchain-community with infinity_client."""
    made = InfinityRerank(client=Client(base_url=base), model="any", top_n=len(documents))
    return _compress(made, query, documents)


def nvidia(base: str, query: str, documents: list[str]) -> Ranking:
    """langchain-nvidia-ai-endpoints, whose scores are logits, so that the order alone is compared."""
    made = NVIDIARerank(base_url=base, model="any", api_key="any", top_n=len(documents))
    return [(index, None) for index, _ in _compress(made, query, documents)]


def _compress(compressor: BaseDocumentCompressor, query: str, documents: list[str]) -> Ranking:
    ranked = compressor.compress_documents([Document(text) for text in documents], query)
    return by_text(documents, [(each.page_content, each.metadata["relevance_score"]) for each in ranked])


if __name__ == "__main__":
    report(
        Row("LangChain CohereRerank", "langchain-cohere", "base_url", "{url}", cohere),
        Row("LangChain VoyageAIRerank", "langchain-voyageai", "base_url", "{url}/v1", voyage),
        Row("LangChain NVIDIARerank", "langchain-nvidia-ai-endpoints", "base_url", "{url}/v1", nvidia),
        Row("LangChain InfinityRerank", "langchain-community", "base_url", "{url}", infinity),
    )
