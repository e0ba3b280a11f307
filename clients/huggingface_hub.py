"""Hugging Face's InferenceClient: text classification of pairs, whose probabilities make our score."""

from huggingface_hub import InferenceClient

from clients.probe import Ranking, Row, by_score, report

GAINS = {"exact": 1.0, "substitute": 0.5}
"""Gains of the default bundle's labels, as GET /v1/models has them; the others have none."""


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """One request a pair, as the client cannot send several."""
    hub = InferenceClient(model=base)
    scores = []
    for document in documents:
        classes = hub.text_classification([[query, document]])
        scores.append(sum(GAINS.get(each.label, 0.0) * each.score for each in classes))
    return by_score(scores)


if __name__ == "__main__":
    report(Row("huggingface_hub InferenceClient", "huggingface-hub", "model", "{url}", client))
