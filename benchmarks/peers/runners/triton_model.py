"""Server peer: a model of Triton's python backend around ort_scorer. The repository's config.pbtxt gives its parameters.

A request has one row a document: the query, which is the same in all, and the text. Triton merges what waits into one batch;
rows of one query are scored as one list.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import triton_python_backend_utils as backend  # first: it says where the other packages are

import numpy as np  # isort: skip
from ort_scorer import OrtScorer  # isort: skip


class TritonPythonModel:
    """Called by Triton's python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model."""
        given = {
            name: value["string_value"]
            for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        self._scorer = OrtScorer(Path(given["folder"]), int(given["threads"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = ("query", "document")
        query, document = (
            [
                value.decode()
                for value in backend.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)
            ]
            for name in names
        )
        scores: list[float] = []
        for text, rows in groupby(zip(query, document, strict=True), key=lambda row: row[0]):
            scores += self._scorer.scores(text, [row[1] for row in rows])
        tensor = backend.Tensor("score", np.array(scores, np.float32).reshape(-1, 1))
        return backend.InferenceResponse([tensor])
