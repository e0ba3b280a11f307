"""Dify's plugin SDK: the class behind its provider "OpenAI-API-compatible"."""

from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel

from clients.probe import MODEL, Ranking, Row, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """Dify stretches the scores to [0, 1] by itself, so that the order alone is ours."""
    credentials = {"endpoint_url": base, "api_key": "any"}
    answer = OAICompatRerankModel([])._invoke(MODEL, credentials, query, documents, top_n=len(documents))  # noqa: SLF001
    return [(document.index, None) for document in answer.docs]


if __name__ == "__main__":
    report(Row("dify_plugin OAICompatRerankModel", "dify-plugin", "endpoint_url", "{url}/v1", client))
