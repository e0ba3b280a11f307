"""What is served now, as gauges that are read at each scrape: the models, and how far their scores have drifted.

Knows the roles of models and their drift; does not know requests or when models change.
Invariant: a scrape shows the models of one moment, no series of a model that has gone, and none that has no value yet.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bundle import Bundle
from service.telemetry.drift import Drift, Reading
from service.telemetry.meters import ROLES

WHOSE: Final = ("role", "model")
OF: Final = ("traffic", "reference")


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One model that is served, what it runs on, and in which role: one of `ROLES`."""

    role: str
    bundle: Bundle
    precision: str
    device: str
    drift: Drift

    @property
    def model(self) -> str:
        """name@version."""
        return f"{self.bundle.manifest.name}@{self.bundle.manifest.version}"


class ServedModels(Collector):
    """The models that are served; `show` replaces all of them at once."""

    def __init__(self) -> None:
        self._all: tuple[Served, ...] = ()

    def show(self, served: Iterable[Served]) -> None:
        """Take note of what is served from now on, each model in one role."""
        found = tuple(served)
        assert len({each.model for each in found}) == len(found), "a model in two roles"
        assert {each.role for each in found} <= set(ROLES), "a role that nobody knows"
        self._all = found

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges of all models."""
        now = self._all
        info = _gauge(
            "model_info",
            "A bundle being served, and its role; always 1.",
            "name", "version", "bundle", "precision", "device", "role",
        )  # fmt: skip
        for each in now:
            manifest = each.bundle.manifest
            labels = [manifest.name, manifest.version, each.bundle.id, each.precision, each.device, each.role]
            info.add_metric(labels, 1.0)
        yield info
        yield from _drift_gauges(now)


def _drift_gauges(served: Iterable[Served]) -> Iterator[GaugeMetricFamily]:
    documents = _gauge("drift_documents", "Scored documents that the drift gauges tell of.", *WHOSE)
    psi = _gauge(
        "drift_psi", "Population stability index of the scores: above 0.25 they are other ones.", *WHOSE
    )
    distance = _gauge(
        "drift_class_distance", "Share of documents in another class than in the reference.", *WHOSE
    )
    scores = _gauge("drift_scores", "Documents by score, up to a bound.", *WHOSE, "of", "up_to")
    classes = _gauge("drift_classes", "Documents by their most probable class.", *WHOSE, "of", "label")
    truncated = _gauge("drift_truncated_ratio", "Share of tokenized documents that lost text.", *WHOSE, "of")
    unknown = _gauge("drift_unknown_ratio", "Share of tokens that the vocabulary lacks.", *WHOSE, "of")
    for each in served:
        reading, reference = each.drift.read(), each.drift.reference()
        whose = (each.role, each.model)
        _add(documents, reading.documents, *whose)
        _add(psi, reading.psi, *whose)
        _add(distance, reading.class_distance, *whose)
        for of, reading_of in zip(OF, (reading, reference), strict=True):
            if reading_of is not None:
                for up_to, count in _bins(reading_of):
                    _add(scores, count, *whose, of, up_to)
                for label, count in zip(each.bundle.manifest.labels, reading_of.classes, strict=True):
                    _add(classes, count, *whose, of, label.name)
                _add(truncated, reading_of.truncated, *whose, of)
                _add(unknown, reading_of.unknown, *whose, of)
    yield from (documents, psi, distance, scores, classes, truncated, unknown)


def _bins(reading: Reading) -> Iterator[tuple[str, int]]:
    """Yield the upper bound of each bin and its count."""
    bins = len(reading.scores)
    for number, count in enumerate(reading.scores, start=1):
        yield f"{number / bins:g}", count


def _gauge(name: str, sentence: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"shelfrank_{name}", sentence, labels=labels)


def _add(gauge: GaugeMetricFamily, value: float, *labels: str) -> None:
    if not math.isnan(value):
        gauge.add_metric(labels, value)
