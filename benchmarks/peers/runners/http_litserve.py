"""Server peer: LitServe with ort_scorer behind it, one worker. Arguments: folder, port, threads."""

import sys
from pathlib import Path
from typing import Any

import litserve
from ort_scorer import OrtScorer


class Reranker(litserve.LitAPI):
    """A request is one list; LitServe would batch requests, not documents, so it is left off."""

    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's signature
        """Open the model in the worker."""
        self._scorer = OrtScorer(Path(sys.argv[1]), int(sys.argv[3]))

    def decode_request(self, request: dict[str, Any]) -> tuple[str, list[str]]:
        """Take query and documents."""
        return request["query"], request["documents"]

    def predict(self, x: tuple[str, list[str]]) -> list[float]:
        """Score the list."""
        return self._scorer.scores(*x)

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """Return results as Cohere has them, in the order of the request."""
        return {"results": [{"index": place, "relevance_score": score} for place, score in enumerate(output)]}


if __name__ == "__main__":
    server = litserve.LitServer(Reranker(api_path="/rerank"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
