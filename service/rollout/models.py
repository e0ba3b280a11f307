"""PURE. Says what is served: the bundle's own facts, listed as clients of OpenAI's API list models.

Knows a bundle's manifest, which of its graphs runs and in which role; does not know requests.
Invariant: every other fact is the manifest's, and no name of a file is among them.
"""

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bundle import Bundle
from bundle.manifest import (
    Calibration,
    GraphSpec,
    Label,
    Manifest,
    Precision,
    Provenance,
    Quality,
    Sha256,
    TensorSpec,
    TextContract,
)

Role = Literal["stable", "canary", "shadow", "named"]
"""Who is answered by a model: all who name none, a share of them, nobody (it only ranks beside), those who name it."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class Graph(_Facts):
    """One graph of the bundle: its signature, content and size."""

    precision: Precision
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sha256: Sha256
    size_bytes: int


class GoldenRows(_Facts):
    """The pairs that a bundle is proven on before it serves, and how far a score may be off."""

    rows: int
    tolerance: float


class Model(_Facts):
    """One model, with all that its bundle says about it."""

    id: str = Field(description="name@version, as every answer gives it and `model` takes it.")
    object: Literal["model"] = "model"
    model_type: Literal["rerank"] = Field("rerank", description="As Xinference's client asks.")
    created: int = Field(description="Unix time of the bundle in seconds; 0 if it does not say.")
    owned_by: Literal["shelfrank"] = "shelfrank"
    role: Role = Field(description="Who gets it: all, a share, nobody, or only those who name it.")
    name: str
    version: str
    bundle: str = Field(description="Short id of the bundle, as every answer gives it.")
    precision: Precision = Field(description="Precision of the graph that is served.")
    default_precision: Precision
    graphs: tuple[Graph, ...]
    text: TextContract = Field(description="How texts become tokens: fields, limits and longest pair.")
    labels: tuple[Label, ...] = Field(description="Classes with their gains, least relevant first.")
    calibration: Calibration = Field(description="How a logit becomes class probabilities.")
    golden: GoldenRows
    quality: Quality
    gates: dict[str, float] = Field(description="What the bundle was held to, and how it did.")
    provenance: Provenance


class ModelList(_Facts):
    """All models that are served here."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]


def describe_model(bundle: Bundle, precision: str, role: Role = "stable") -> Model:
    """Return the facts of a bundle of which the graph of `precision` is served in a role."""
    manifest = bundle.manifest
    return Model(
        id=f"{manifest.name}@{manifest.version}",
        created=_unix_time(manifest.provenance.created),
        role=role,
        name=manifest.name,
        version=manifest.version,
        bundle=bundle.id,
        precision=manifest.graph(precision).precision,
        default_precision=manifest.default_precision,
        graphs=tuple(_graph(graph, manifest) for graph in manifest.graphs),
        text=manifest.text,
        labels=manifest.labels,
        calibration=manifest.calibration,
        golden=GoldenRows(rows=manifest.golden.rows, tolerance=manifest.golden.tolerance),
        quality=manifest.quality,
        gates=manifest.gates,
        provenance=manifest.provenance,
    )


def to_json(facts: Model | ModelList) -> bytes:
    """Return the facts as JSON."""
    return facts.model_dump_json().encode()


def _graph(graph: GraphSpec, manifest: Manifest) -> Graph:
    entry = manifest.files[graph.file]
    return Graph(
        precision=graph.precision,
        opset=graph.opset,
        inputs=graph.inputs,
        outputs=graph.outputs,
        sha256=entry.sha256,
        size_bytes=entry.size,
    )


def _unix_time(created: str) -> int:
    """Read a time in UTC; the manifest's is free text, so it may be none."""
    try:
        moment = dt.datetime.fromisoformat(created)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0, int(moment.timestamp()))
