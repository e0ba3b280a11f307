"""Triton's HTTP client: a query and products as tensors of bytes."""

import numpy as np
import tritonclient.http as triton

from clients.probe import Ranking, Row, by_score, report


def client(base: str, query: str, documents: list[str]) -> Ranking:
    """Both tensors in binary form, as the client sends them by default."""
    with triton.InferenceServerClient(base) as opened:
        (model, *_) = opened.get_model_repository_index()
        tensors = []
        for name, texts in (("query", [query]), ("document", documents)):
            tensor = triton.InferInput(name, [len(texts)], "BYTES")
            tensor.set_data_from_numpy(np.array(texts, dtype=object))
            tensors.append(tensor)
        answer = opened.infer(model["name"], tensors)
    return by_score(answer.as_numpy("score").tolist())


if __name__ == "__main__":
    report(Row("tritonclient InferenceServerClient", "tritonclient", "url", "{host}", client))
