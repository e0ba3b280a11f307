"""Scores a sample of held-out lists, so that a service can tell when its traffic is no longer like them.

Knows judged lists and the graph that will serve; does not know torch or what a service compares.
Invariant: every pair of the sample is counted once, in the score bins and in the classes alike.
"""

from collections.abc import Sequence

import numpy as np

from bundle.manifest import Manifest, ScoreReference
from bundle.rows import Rows
from bundle.score import class_probabilities, relevance
from bundle.text import PairEncoder
from training.data.lists import JudgedList, encode_lists
from training.models.runtime import OrtSession, score_rows

BINS = 10
SAMPLE_PAIRS = 10_000  # a share of a tenth is then known to 0.003, and scoring them takes seconds


def sample_lists(lists: Sequence[JudgedList], pairs: int, seed: int) -> list[JudgedList]:
    """Draw whole lists at random until they hold so many pairs, or all of them; held-out, they are as traffic is."""
    chosen: list[JudgedList] = []
    held = 0
    for place in np.random.default_rng(seed).permutation(len(lists)):
        if held >= pairs:
            break
        chosen.append(lists[place])
        held += len(lists[place])
    return chosen


def score_reference(
    manifest: Manifest, tokenizer: bytes, graph: bytes, lists: Sequence[JudgedList], sample: str
) -> ScoreReference:
    """Return the distribution of scores and classes, and how well the texts are read, over all pairs of the lists."""
    encoder = PairEncoder(tokenizer, manifest.text)
    rows = encode_lists(encoder, lists)
    logits = score_rows(OrtSession(graph), rows, manifest.text)
    probabilities = class_probabilities(logits, manifest.calibration)
    scores = relevance(probabilities, manifest.labels)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    unknown = encoder.count_unknown(Rows.of(rows))
    return ScoreReference(
        sample=sample,
        precision=manifest.default_precision,
        pairs=len(rows),
        scores=tuple(np.bincount(bins, minlength=BINS).tolist()),
        classes=tuple(np.bincount(probabilities.argmax(axis=1), minlength=len(manifest.labels)).tolist()),
        truncated=sum(row.truncated for row in rows) / len(rows),
        unknown=None if unknown is None else unknown / sum(map(len, rows)),
    )
