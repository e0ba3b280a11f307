"""Library peer: fastembed's TextCrossEncoder on a model folder of our own. Arguments: folder, threads."""

import math
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # before its libraries are imported

import pipe
from fastembed.common.model_description import ModelSource
from fastembed.rerank.cross_encoder import TextCrossEncoder

folder, threads = sys.argv[1:]
TextCrossEncoder.add_custom_model(
    model="own", model_file="model.onnx", sources=ModelSource(hf="nobody/nothing")
)
model = TextCrossEncoder("own", threads=int(threads), specific_model_path=folder)


def score(query: str, documents: list[str]) -> list[float]:
    """Return the sigmoids of its raw scores; it batches 64 in the order given."""
    return [1 / (1 + math.exp(-logit)) for logit in model.rerank(query, documents)]


pipe.serve(score)
