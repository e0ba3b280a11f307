"""A cross-encoder brought over: read, tried, and written as a bundle.

Knows the steps and their order; does not know how each is done.
Invariant: a bundle is there, verified, or nothing is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bundle.manifest import Golden, Manifest, Provenance, Quality, QualityRow
from bundle.store import Bundle
from training.data.golden import golden_pairs
from training.data.judgments import few, read_judgments
from training.data.lists import JudgedList, by_list
from training.errors import StageError
from training.folders import file_sha256
from training.importing.card import card
from training.importing.command import Order
from training.importing.folder import fetch, read_source
from training.importing.graphs import Graphs, make_graphs
from training.importing.model import load, positions_of
from training.importing.text import Texts, check_texts, in_words, load_texts
from training.importing.trial import Trial, make_trial
from training.importing.worth import Scale, relevance_of, scale_of
from training.measure.figures import GAIN_MAP, figures, quality_rows
from training.pack.assemble import GOLDEN_FILE, TOKENIZER_FILE, Sample, assemble, graph_specs
from training.provenance import commit, libraries

GOLDEN_TOLERANCE = 0.02  # largest |score| difference on another CPU
RESAMPLES = 1000


def bring(order: Order) -> Bundle:
    """Write the bundle that is ordered, saying what was decided; StageError, DataError or BundleError in one line."""
    target = order.out / order.name
    if target.exists() and not order.replace:
        raise StageError(f"{target} exists: choose another --name, or --replace it")
    given = read_judgments(order.pairs, products=order.products, queries=order.queries) if order.pairs else []
    source = read_source(fetch(order.model, order.weights), order.model)
    model = load(source)
    relevance, output = relevance_of(source, model.config.num_labels, order.gains)
    texts = load_texts(source, order.text, model.config.vocab_size, positions_of(source, model))
    trial = make_trial(texts.encoder(), given)
    check_texts(source, texts, order.text, trial.pairs)
    print(f"model: {source.kind}, {output}")
    print(f"text: {in_words(order.text)}; {texts.contract.max_length} tokens a pair")
    graphs = make_graphs(model, relevance, texts.contract, trial, order.precisions)
    scale = scale_of(source, trial.lists, graphs.logits[graphs.served] if trial.graded else None)
    made = [_origin(graphs), _tried_on(order, trial), *graphs.notes]
    for line in (*made, scale.note, few(given) if given else ""):
        if line:
            print(line)
    draft = _draft(order, texts, graphs, scale, trial)
    bundle = assemble(
        order.out,
        draft,
        graphs=graphs.files,
        tokenizer=texts.file,
        reference=Sample(trial.lists, f"judged pairs of {order.pairs}") if order.pairs else None,
        card=partial(card, made=made, text=in_words(order.text), score=[output, scale.note]),
        replace=order.replace,
    )
    print(
        f"bundle {bundle.id[:12]} in {target}: serve it by python -m service --bundle-root {order.out} --bundle {order.name}"
    )
    return bundle


def _origin(graphs: Graphs) -> str:
    engine = "the native engine takes it" if graphs.is_native else "ONNX Runtime computes it"
    exporter = "our own graph" if graphs.kind == "flat" else "the stock exporter's graph"
    return f"{exporter}, {graphs.served}: {engine}"


def _tried_on(order: Order, trial: Trial) -> str:
    whose = f"of {order.pairs.name}" if order.pairs else "that ship with shelfrank"
    return f"compared with fp32 on {len(trial.lists)} lists, {len(trial.rows)} pairs, {whose}"


def _quality(order: Order, graphs: Graphs, trial: Trial) -> tuple[QualityRow, ...]:
    if order.pairs is None:
        return ()
    found: list[QualityRow] = []
    for precision, logits in graphs.logits.items():
        told = figures(trial.lists, by_list(logits, trial.lists), RESAMPLES)
        found += quality_rows(order.pairs.stem, f"{order.name} {precision}", told)
    return tuple(found)


def _draft(order: Order, texts: Texts, graphs: Graphs, scale: Scale, trial: Trial) -> Manifest:
    """Return the manifest before its files are known."""
    asked = json.dumps(asdict(order), default=str, sort_keys=True)
    data_sha256 = file_sha256(order.pairs) if order.pairs and order.pairs.is_file() else _sha256("")
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
        golden=Golden(file=GOLDEN_FILE, rows=len(golden_pairs()), tolerance=GOLDEN_TOLERANCE),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            recipe_sha256=_sha256(asked),
            data_sha256=data_sha256,
            teacher=f"the cross-encoder {order.model}",
            seed=0,
            libraries=libraries(),
            licences=order.licences or ("those of the model, not looked up",),
        ),
        gates=graphs.figures,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
