"""A bundle as the model to train on: its weights read back out of the graph, its texts by its own contract.

Knows bundles and torch; does not know judgments.
Invariant: the model orders texts as the served graph does, or the bundle is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from bundle.store import Bundle, read_bundle
from bundle.text import PairEncoder
from training.data.golden import golden_pairs
from training.data.lists import encode_pairs
from training.errors import StageError
from training.export.checkpoint import read_graph
from training.measure.metrics import spearman
from training.models.runtime import OrtSession, score_rows
from training.student.student import Student

LEAST_AGREEMENT = (
    0.99  # Spearman, over the golden pairs, between the model that is read back and the served graph
)


def open_bundle(folder: Path) -> Bundle:
    """Return the bundle in a folder; BundleError if it is not whole."""
    return read_bundle(folder.resolve().parent, folder.resolve().name)


def student_of(bundle: Bundle) -> Student:
    """Return the bundle's model in float32, in evaluation mode, with its encoder and text contract.

    An fp32 or fp16 graph is read before an int8 one. StageError if the graph is not of a BERT, or what was read
    does not order the golden pairs as the served graph does.
    """
    offered = [graph.precision for graph in bundle.manifest.graphs]
    precision = next(each for each in ("fp32", "fp16", "int8") if each in offered)
    try:
        tensors, config = read_graph(bundle.files[bundle.manifest.graph(precision).file])
    except ValueError as error:
        raise StageError(
            f"bundle {bundle.manifest.name} cannot be trained on: {error}; only BERT bundles can"
        ) from error
    model = BertForSequenceClassification(BertConfig(**config, num_labels=1))
    weights = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    model.load_state_dict(weights, strict=False)
    contract = bundle.manifest.text
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], contract)
    made = Student(model.eval(), encoder, contract)
    rows = encode_pairs(encoder, golden_pairs())
    served = score_rows(OrtSession(bundle.files[bundle.manifest.graph().file]), rows, contract)
    if not spearman(made.score(rows), served) > LEAST_AGREEMENT:
        raise StageError(
            f"bundle {bundle.manifest.name} cannot be trained on: its weights read back do not score as it does"
        )
    return made
