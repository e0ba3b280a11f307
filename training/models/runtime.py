"""Runs an ONNX graph on one thread and scores token rows with it.

Knows ONNX Runtime and row lengths; does not know texts or labels.
Invariant: a row is computed at a length that depends on the row alone, so its batch-mates never matter.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bundle.manifest import TensorSpec, TextContract
from bundle.rows import Row, assemble, padded_length
from bundle.verify import Session
from training.models.batching import batches_of_one_length

_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


class OrtSession:
    """An ONNX Runtime CPU session of one thread; satisfies `bundle.verify.Session`."""

    def __init__(self, model: bytes) -> None:
        """Load the graph from its bytes."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_spec(tensor) for tensor in self._session.get_inputs())
        self.outputs = tuple(_spec(tensor) for tensor in self._session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the first output, float32 [n] logits."""
        logits: NDArray[np.float32] = self._session.run([self.outputs[0].name], dict(feeds))[0]
        return logits


def buckets(rows: Sequence[Row], max_length: int, batch_rows: int = 64) -> list[tuple[int, list[int]]]:
    """Return (length, indices) of rows that are padded alike, at most `batch_rows` of them, longest first."""
    lengths = [padded_length(len(row), max_length) for row in rows]
    return sorted(batches_of_one_length(lengths, batch_rows), key=lambda batch: -batch[0])


def score_rows(session: Session, rows: Sequence[Row], contract: TextContract) -> NDArray[np.float32]:
    """Logits [n] of the rows, in their order."""
    logits = np.empty(len(rows), np.float32)
    for length, indices in buckets(rows, contract.max_length):
        feeds = assemble([rows[index] for index in indices], contract.template, length)
        logits[indices] = session.run(feeds)
    return logits


def _spec(tensor: onnxruntime.NodeArg) -> TensorSpec:
    return TensorSpec(name=tensor.name, dtype=_DTYPES[tensor.type], shape=tuple(tensor.shape))
