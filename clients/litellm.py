"""LiteLLM's rerank, through each provider whose dialect is spoken here."""

from functools import partial

import litellm

from clients.probe import Ranking, Row, report


def client(model: str, base: str, query: str, documents: list[str]) -> Ranking:
    """One provider, named in front of the model."""
    answer = litellm.rerank(model=model, query=query, documents=documents, api_base=base, api_key="any")
    return [(result["index"], result["relevance_score"]) for result in answer.results]


if __name__ == "__main__":
    bases = {
        "cohere/rerank-v3.5": "",
        "jina_ai/jina-reranker-v2-base-multilingual": "",
        "voyage/rerank-2.5": "/voyage",
        "infinity/any": "",
        "huggingface/any": "",
        "hosted_vllm/any": "/vllm",
    }
    report(
        *(
            Row(f"LiteLLM {model}", "litellm", "api_base", "{url}" + base, partial(client, model))
            for model, base in bases.items()
        )
    )
