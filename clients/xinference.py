"""Xinference's client, which asks what a model is before it ranks with it."""

from xinference_client import RESTfulClient

from clients.probe import Ranking, Row, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """A model that the list names is got and then asked, as Xinference's pages have it."""
    opened = RESTfulClient(base)
    (model, *_) = opened.list_models()
    answer = opened.get_model(model).rerank(documents, query)
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


if __name__ == "__main__":
    report(Row("xinference-client RESTfulClient", "xinference-client", "base_url", "{url}", client))
