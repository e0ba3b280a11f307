"""Library peer: sentence-transformers' CrossEncoder. Arguments: folder, threads, backend, file of the backend or "-"."""

import os
import sys
from collections.abc import Sequence

os.environ["HF_HUB_OFFLINE"] = "1"  # before its libraries are imported

import pipe
import torch
from sentence_transformers import CrossEncoder

folder, threads, backend, file = sys.argv[1:]
torch.set_num_threads(int(threads))
options = {} if file == "-" else {"file_name": file}
if backend == "onnx":
    options["provider"] = "CPUExecutionProvider"
model = CrossEncoder(folder, backend=backend, device="cpu", model_kwargs=options)


def score(query: str, documents: list[str]) -> Sequence[float]:
    """Return the sigmoids, which are the library's default for one label; it sorts by length, and batches 32."""
    scores: Sequence[float] = model.predict(
        [(query, document) for document in documents], show_progress_bar=False
    ).tolist()
    return scores


pipe.serve(score)
