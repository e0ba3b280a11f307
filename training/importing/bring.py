"""A cross-encoder brought over: read, tried, and written as a bundle.

Knows the steps and their order; does not know how each is done.
Invariant: a bundle is there, verified, or nothing is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import numpy as np

from bundle.manifest import Golden, Manifest, Provenance, Quality, QualityRow
from bundle.score import class_probabilities, relevance
from bundle.store import Bundle
from training.data.golden import golden_pairs
from training.data.judgments import few
from training.data.lists import by_list, encode_pairs
from training.folders import file_sha256
from training.importing.card import card
from training.importing.command import EMPTY, Order
from training.importing.folder import fetch, read_source
from training.importing.model import load, positions_of
from training.importing.text import Texts, check_texts, in_words, load_texts
from training.importing.worth import Scale, relevance_of, scale_of
from training.measure.figures import GAIN_MAP, figures, quality_rows
from training.models.runtime import OrtSession, score_rows
from training.pack.assemble import GOLDEN_FILE, TOKENIZER_FILE, Sample, assemble, graph_specs
from training.pack.graphs import Graphs, make_graphs
from training.pack.target import free_target
from training.pack.trial import Trial, make_trial
from training.provenance import commit, libraries

GOLDEN_TOLERANCE = 0.02  # largest |score| difference of a graph on another CPU
RESAMPLES = 1000


def bring(order: Order) -> Bundle:
    """Write the bundle that is ordered, saying what was decided; StageError, DataError or BundleError in one line."""
    target = free_target(order.out, order.name, replace=order.replace)
    source = read_source(fetch(order.model, order.weights), order.model)
    model = load(source)
    folded, output = relevance_of(source, model.config.num_labels, order.gains)
    texts = load_texts(source, order.text, model.config.vocab_size, positions_of(source, model))
    trial = make_trial(texts.encoder(), order.lists)
    check_texts(source, texts, order.text, trial.pairs)
    print(f"model: {source.kind}. {output}")
    print(f"text: {in_words(order.text)}; {texts.contract.max_length} tokens a pair")
    graphs = make_graphs(model, folded, texts.contract, trial, order.precisions)
    scale = scale_of(source, trial.lists, graphs.logits[graphs.served] if trial.graded else None)
    made = [_origin(graphs), _tried_on(order, trial), *graphs.notes]
    for line in (*made, scale.note, few(order.lists) if order.lists else ""):
        if line:
            print(line)
    draft = _draft(order, texts, graphs, scale, trial)
    bundle = assemble(
        order.out,
        draft,
        graphs=graphs.files,
        tokenizer=texts.file,
        reference=Sample(trial.lists, f"judged pairs of {order.judgments}") if order.judgments else None,
        card=partial(card, made=made, text=in_words(order.text), score=[output, scale.note]),
        replace=order.replace,
    )
    print(
        f"bundle {bundle.id[:12]} in {target}: serve it by python -m service --models-root {order.out} --bundle {order.name}"
    )
    return bundle


def _origin(graphs: Graphs) -> str:
    engine = "the native engine takes it" if graphs.is_native else "ONNX Runtime computes it"
    exporter = "our own graph" if graphs.kind == "flat" else "the stock exporter's graph"
    return f"{exporter}, {graphs.served}: {engine}"


def _tried_on(order: Order, trial: Trial) -> str:
    whose = f"of {order.judgments.name}" if order.judgments else "that ship with shelfrank"
    return f"tried on {len(trial.lists)} lists, {len(trial.rows)} pairs, {whose}"


def _quality(order: Order, graphs: Graphs, trial: Trial) -> tuple[QualityRow, ...]:
    if order.judgments is None:
        return ()
    found: list[QualityRow] = []
    for precision, logits in graphs.logits.items():
        told = figures(trial.lists, by_list(logits, trial.lists), RESAMPLES)
        found += quality_rows(order.judgments.stem, f"{order.name} {precision}", told)
    return tuple(found)


def _tolerance(texts: Texts, graphs: Graphs, scale: Scale) -> float:
    """Return how far golden scores may be off: as far as the graphs are apart, if there are several, and a bit more."""
    rows = encode_pairs(texts.encoder(), golden_pairs())
    scores = [
        relevance(
            class_probabilities(score_rows(OrtSession(graph), rows, texts.contract), scale.calibration),
            scale.labels,
        )
        for graph in graphs.files.values()
    ]
    return GOLDEN_TOLERANCE + float(np.ptp(scores, axis=0).max())


def _draft(order: Order, texts: Texts, graphs: Graphs, scale: Scale, trial: Trial) -> Manifest:
    """Return the manifest before its files are known."""
    is_file = order.judgments is not None and order.judgments.is_file()
    data_sha256 = file_sha256(order.judgments) if is_file else EMPTY
    return Manifest(
        schema_version=1,
        name=order.name,
        version=order.version,
        files={},
        graphs=graph_specs(graphs.files),
        default_precision=graphs.served,
        text=texts.contract,
        tokenizer=TOKENIZER_FILE,
        labels=scale.labels,
        calibration=scale.calibration,
        quality=Quality(gain_map=GAIN_MAP, data_sha256=data_sha256, rows=_quality(order, graphs, trial)),
        golden=Golden(file=GOLDEN_FILE, rows=len(golden_pairs()), tolerance=_tolerance(texts, graphs, scale)),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            recipe_sha256=order.sha256,
            data_sha256=data_sha256,
            teacher=f"the cross-encoder {order.model}",
            seed=0,
            libraries=libraries(),
            licences=order.licences or ("those of the model, not looked up",),
        ),
        gates=graphs.figures,
    )
