"""Library peer: FlashRank on a model folder of our own. Arguments: folder, longest pair in tokens.

It leaves the number of threads to ONNX Runtime, which takes one for each core.
"""

import sys
from pathlib import Path

import pipe
from flashrank import Ranker, RerankRequest
from flashrank.Config import model_file_map

folder = Path(sys.argv[1])
model_file_map[folder.name] = "model.onnx"
ranker = Ranker(folder.name, str(folder.parent), max_length=int(sys.argv[2]), log_level="WARNING")


def score(query: str, documents: list[str]) -> list[float]:
    """Return its scores in the order given; it pads the whole list to its longest pair."""
    passages = [{"id": place, "text": text} for place, text in enumerate(documents)]
    scores = [0.0] * len(passages)
    for passage in ranker.rerank(RerankRequest(query, passages)):
        scores[passage["id"]] = passage["score"]
    return scores


pipe.serve(score)
