"""Writes the tuned model as a bundle: graphs behind their gate, the old meaning of scores, and a card that says what it is.

Knows the tuned model and its figures; does not know how it was learnt.
Invariant: a score of the new bundle means what a score of the old one means, on the shop's own products.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bundle.manifest import Calibration, Golden, Manifest, Provenance, Quality, QualityRow
from bundle.store import Bundle
from training.data.golden import golden_pairs
from training.data.lists import JudgedList, digest
from training.measure import calibration
from training.measure.comparison import METRICS, Comparison
from training.measure.figures import GAIN_MAP, quality_rows
from training.models.runtime import OrtSession, score_rows
from training.pack.assemble import GOLDEN_FILE, TOKENIZER_FILE, Sample, assemble, graph_specs
from training.pack.card import UNSIGNED
from training.pack.graphs import Graphs, make_graphs
from training.pack.trial import Trial, make_trial
from training.provenance import commit, libraries
from training.student.student import Student
from training.tune.folds import Candidate
from training.tune.learn import Settings

BEFORE, AFTER = "before", "after"  # the systems of the comparison
CLASSES = 4  # grades 0 to 3
LEAST_OF_CLASS = 30  # judged pairs of every grade from which the classes are fitted anew


@dataclass(frozen=True, slots=True)
class Tuned:
    """The bundle that tuning began from, the student with its new weights, and what held-out queries said of it."""

    before: Bundle
    student: Student
    lists: Sequence[JudgedList]
    comparison: Comparison
    settings: Settings
    chosen: Candidate
    verdict: str
    notes: Sequence[str]


def write(tuned: Tuned, out: Path, name: str, version: str, seed: int) -> Bundle:
    """Write `out/name`, in the place of a bundle that is there; BundleError if it does not verify."""
    old = tuned.before.manifest
    trial = make_trial(tuned.student.encoder, tuned.lists)
    graphs = make_graphs(tuned.student.model, None, old.text, trial, (old.default_precision,))
    scale, meaning = _calibrated(tuned, graphs, trial)
    data = digest(tuned.lists)
    told = {"settings": asdict(tuned.settings), "chosen": asdict(tuned.chosen), "from": tuned.before.id}
    draft = Manifest(
        schema_version=1,
        name=name,
        version=version,
        files={},
        graphs=graph_specs(graphs.files),
        default_precision=graphs.served,
        text=old.text,
        tokenizer=TOKENIZER_FILE,
        labels=old.labels,
        calibration=scale,
        quality=Quality(gain_map=GAIN_MAP, data_sha256=data, rows=_quality(tuned.comparison)),
        golden=Golden(file=GOLDEN_FILE, rows=len(golden_pairs()), tolerance=old.golden.tolerance),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            recipe_sha256=hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(),
            data_sha256=data,
            teacher=f"judgements of a shop, from bundle {old.name} {old.version} ({tuned.before.id})",
            seed=seed,
            libraries=libraries(),
            licences=old.provenance.licences,
        ),
        gates=graphs.figures,
    )
    return assemble(
        out,
        draft,
        graphs=graphs.files,
        tokenizer=tuned.before.files[old.tokenizer],
        reference=Sample(trial.lists, "judged pairs of the shop that it was tuned on"),
        card=lambda manifest: _card(manifest, tuned, [*graphs.notes, meaning]),
        replace=True,
    )


def _calibrated(tuned: Tuned, graphs: Graphs, trial: Trial) -> tuple[Calibration, str]:
    """Return what the new logits mean, and a sentence on it.

    Where every grade has many pairs, the classes are fitted to the held-out logits of the shop's own grades. Else new
    logits are mapped onto the old bundle's by mean and spread over the same pairs, and mean what those mean.
    """
    old = tuned.before.manifest
    grades = np.concatenate([np.array(judged.grades) for judged in tuned.comparison.lists])
    held_out = np.concatenate([np.asarray(scores) for scores in tuned.comparison.systems[AFTER]])
    if len(old.labels) == CLASSES and np.bincount(grades, minlength=CLASSES).min() >= LEAST_OF_CLASS:
        return calibration.fit(
            held_out, grades, CLASSES
        ), f"Classes were fitted on {len(grades)} grades of held-out queries."
    new = graphs.logits[graphs.served].astype(np.float64)
    session = OrtSession(tuned.before.files[old.graph().file])
    known = score_rows(session, trial.rows, old.text).astype(np.float64)
    stretch = float(known.std() / new.std())
    shift = float(known.mean() - stretch * new.mean())
    slope = old.calibration.slope
    fitted = Calibration(
        method="ordinal",
        slope=slope * stretch,
        thresholds=tuple(threshold - slope * shift for threshold in old.calibration.thresholds),
    )
    return fitted, (
        f"Scores keep the level and spread of {old.name} {old.version} on the shop's pairs; classes would have been fitted "
        f"if each grade had {LEAST_OF_CLASS} pairs."
    )


def _quality(comparison: Comparison) -> tuple[QualityRow, ...]:
    """Return the figures of the held-out queries as the manifest's rows."""
    found = {name: comparison.figures(name) for name in comparison.systems}
    found[f"{AFTER} - {BEFORE}"] = {metric: comparison.paired(AFTER, BEFORE, metric) for metric in METRICS}
    return tuple(
        row
        for name, figures in found.items()
        for row in quality_rows("shop held-out", name, {m.lower(): figure for m, figure in figures.items()})
    )


def _card(manifest: Manifest, tuned: Tuned, made: Sequence[str]) -> str:
    """Return the card as Markdown, one sentence a line."""
    old = tuned.before.manifest
    fields = ", ".join(field.name for field in manifest.text.fields)
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"The bundle {old.name} {old.version} ({tuned.before.id[:12]}), tuned to one shop's judgements.",
        f"It reads the query and the product's {fields}, at most {manifest.text.max_length} tokens together.",
        f"{len(tuned.lists)} lists with {sum(map(len, tuned.lists))} products were learnt.",
        "The figures are of queries that were held out while they were measured.",
        "",
        "## Quality",
        "",
        tuned.verdict,
        *tuned.notes,
        "",
        tuned.comparison.markdown(),
        "## How it was made",
        "",
        f"- epochs of the last layers: {tuned.chosen.epoch} of {tuned.settings.epochs}",
        f"- share of the way from the old weights to the new: {tuned.chosen.share:.0%}",
        *(f"- {line}" for line in made),
        *(f"- {name}: {value:.4g}" for name, value in manifest.gates.items()),
        f"- Licences: {'; '.join(manifest.provenance.licences)}.",
        f"- commit {manifest.provenance.commit}, seed {manifest.provenance.seed}",
        UNSIGNED,
        "",
    ]
    return "\n".join(lines)
