"""LlamaIndex's postprocessors: Cohere, Jina, TEI, Xinference and SiliconFlow."""

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.xinference_rerank import XinferenceRerank

from clients.probe import MODEL, Ranking, Row, by_text, report


def cohere(base: str, query: str, documents: list[str]) -> Ranking:
    """llama-index-postprocessor-cohere-rerank."""
    made = CohereRerank(top_n=len(documents), model=MODEL, api_key="any", base_url=base, max_retries=1)
    return _rank(made, query, documents)


def jina(base: str, query: str, documents: list[str]) -> Ranking:
    """llama-index-postprocessor-jinaai-rerank."""
    return _rank(JinaRerank(top_n=len(documents), base_url=base, api_key="any"), query, documents)


def tei(base: str, query: str, documents: list[str]) -> Ranking:
    """llama-index-postprocessor-tei-rerank."""
    return _rank(TextEmbeddingInference(top_n=len(documents), base_url=base), query, documents)


def xinference(base: str, query: str, documents: list[str]) -> Ranking:
    """llama-index-postprocessor-xinference-rerank."""
    return _rank(XinferenceRerank(top_n=len(documents), model=MODEL, base_url=base), query, documents)


def siliconflow(base: str, query: str, documents: list[str]) -> Ranking:
    """llama-index-postprocessor-siliconflow-rerank, whose base_url is the whole address."""
    return _rank(SiliconFlowRerank(top_n=len(documents), base_url=base, api_key="any"), query, documents)


def _rank(postprocessor: BaseNodePostprocessor, query: str, documents: list[str]) -> Ranking:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in documents]
    ranked = postprocessor.postprocess_nodes(nodes, query_str=query)
    return by_text(documents, [(each.node.get_content(), each.score) for each in ranked])


if __name__ == "__main__":
    package = "llama-index-postprocessor-{}-rerank".format
    report(
        Row("LlamaIndex CohereRerank", package("cohere"), "base_url", "{url}", cohere),
        Row("LlamaIndex JinaRerank", package("jinaai"), "base_url", "{url}/v1", jina),
        Row("LlamaIndex TextEmbeddingInference", package("tei"), "base_url", "{url}", tei),
        Row("LlamaIndex XinferenceRerank", package("xinference"), "base_url", "{url}", xinference),
        Row(
            "LlamaIndex SiliconFlowRerank", package("siliconflow"), "base_url", "{url}/v1/rerank", siliconflow
        ),
    )
