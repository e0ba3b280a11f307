"""What is put side by side on judged lists: bundles, services, and what needs neither.

Knows how to have lists scored, and which figures a system's own words allow; does not know how they are shown.
Invariant: a system has one score for every product of every list, or it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Manifest
from bundle.score import class_probabilities, relevance
from bundle.store import read_bundle
from bundle.text import PairEncoder
from bundle.verify import verify_bundle
from training.data.lists import LABELS, JudgedList, by_list, encode_lists
from training.data.sources import FIELDS
from training.evaluate.remote import Service
from training.measure import metrics
from training.measure.baselines import bm25_of_lists, own_order
from training.measure.figures import Scores, served_figures
from training.measure.metrics import Interval
from training.models.runtime import OrtSession, score_rows

BM25 = "BM25"
OWN_ORDER = "the lists' own order"
WORTH = np.array([label.gain for label in LABELS])  # of a grade, as a served score counts it


@dataclass(frozen=True, slots=True)
class System:
    """A name, scores by which each list is ranked, and figures that the scores alone do not tell."""

    name: str
    scores: Scores
    more: Mapping[str, Interval] = field(default_factory=dict)


def of_bundle(folder: Path, lists: Sequence[JudgedList], resamples: int) -> System:
    """Score the lists with a bundle's default graph; BundleError if it is not what it promises to be."""
    manifest, scores = bundle_scores(folder, lists)
    probabilities = class_probabilities(np.concatenate(scores), manifest.calibration)
    served = by_list(relevance(probabilities, manifest.labels), lists)
    more = _class_error(scores, lists, manifest, resamples) | score_error(served, lists, resamples)
    return System(f"{manifest.name}@{manifest.version}", scores, more)


def bundle_scores(folder: Path, lists: Sequence[JudgedList]) -> tuple[Manifest, list[NDArray[np.floating]]]:
    """Return a bundle's manifest and the logits of its default graph; BundleError as in `of_bundle`."""
    bundle = read_bundle(folder.absolute().parent, folder.absolute().name)
    manifest = bundle.manifest
    session = verify_bundle(bundle, OrtSession)
    encoder = PairEncoder(bundle.files[manifest.tokenizer], manifest.text)
    return manifest, by_list(score_rows(session, encode_lists(encoder, lists), manifest.text), lists)


def of_service(service: Service, lists: Sequence[JudgedList], resamples: int) -> System:
    """Have a service score the lists; StageError if it cannot be reached, refuses, or leaves a product out."""
    scores = [service.scores(judged) for judged in lists]
    return System(service.name, scores, score_error(scores, lists, resamples))


def baselines(lists: Sequence[JudgedList], corpus: Sequence[JudgedList]) -> list[System]:
    """Return the lists' own order, if a file has one, and BM25 with the statistics of all lists of the corpus."""
    ranked = own_order(lists)
    found = [System(BM25, bm25_of_lists(lists, FIELDS, corpus))]
    return found if ranked is None else [System(OWN_ORDER, ranked), *found]


def score_error(served: Scores, lists: Sequence[JudgedList], resamples: int) -> dict[str, Interval]:
    """Return how far served scores are from what the products are worth, where scores and grades allow.

    A score that is an expectation lies in [0, 1]; others are left out, and so are lists of one grade alone. The error is
    the expected calibration error with the grade's worth as the outcome: 0, 0, 0.5 and 1.
    """
    stated = np.concatenate(list(served))
    if stated.min() < 0 or stated.max() > 1:
        return {}
    worth = WORTH[np.concatenate([np.array(judged.grades) for judged in lists])]
    owner = np.repeat(np.arange(len(lists)), [len(judged) for judged in lists])
    found = metrics.bootstrap(
        lambda counts: metrics.expected_calibration_error(stated, worth, weights=counts[owner]),
        len(lists),
        resamples=resamples,
    )
    return {"score error": found}


def _class_error(
    logits: Scores, lists: Sequence[JudgedList], manifest: Manifest, resamples: int
) -> dict[str, Interval]:
    """Return the calibration error of the most probable class, where the judgements have the bundle's classes."""
    grades = {grade for judged in lists for grade in judged.grades}
    if len(manifest.labels) != len(LABELS) or len(grades) < len(LABELS) - 1:
        return {}
    figures = served_figures(lists, logits, manifest.calibration, manifest.labels, resamples)
    return {"calibration error": figures["calibration error"]}
