"""OpenAI's SDK: it lists and finds the model, and sends a ranking to the path that it has no method for."""

import openai

from clients.probe import Ranking, Row, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """The model's id comes from the list, is looked up again, and is then asked for."""
    with openai.OpenAI(api_key="any", base_url=base) as opened:
        (listed, *_) = opened.models.list().data
        model = opened.models.retrieve(listed.id)
        body = {"model": model.id, "query": query, "documents": documents}
        answer = opened.post("/rerank", body=body, cast_to=dict)
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


if __name__ == "__main__":
    report(Row("openai OpenAI (models)", "openai", "base_url", "{url}/v1", client))
