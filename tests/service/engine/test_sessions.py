"""Tests of service/engine/sessions.py."""

import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import Bundle, PairEncoder, Product, read_bundle
from bundle.errors import BundleError
from bundle.rows import Row, assemble, padded_length
from bundle.verify import Session, read_golden
from service.engine.sessions import CpuSession, Device, open_sessions, pick_precision
from service.errors import EngineError
from service.native.session import NativeSession, why_not, why_onnxruntime_is_faster
from tests.service.support import ROOT

SHIPPED = sorted(path.parent for path in (ROOT / "models").glob("*/manifest.json"))


@pytest.fixture(params=[None, *SHIPPED], ids=lambda path: path.name if path else "made for tests")
def bundle(request: pytest.FixtureRequest, tiny_bundle: Path) -> Bundle:
    """The bundle made for tests, then each that is shipped."""
    if request.param is None:
        return read_bundle(tiny_bundle, "tiny")
    return read_bundle(request.param.parent, request.param.name)


def test_the_default_bundle_is_shipped() -> None:
    """Without it `make serve` has nothing to serve."""
    assert "default" in {path.name for path in SHIPPED}


def _rows(bundle: Bundle) -> list[Row]:
    """The rows of the golden pairs, and of each golden product under one common query."""
    golden = read_golden(bundle.files[bundle.manifest.golden.file])
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
    own = [encoder.encode(row.query, [row.product])[0] for row in golden]
    return [*own, *encoder.encode("wireless mouse", [row.product for row in golden])]


def _runs(lengths: list[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Group places by length, and cut each group into runs of at most so many."""
    groups = defaultdict(list)
    for place, length in enumerate(lengths):
        groups[length].append(place)
    for length, places in groups.items():
        yield from ((length, places[start : start + most]) for start in range(0, len(places), most))


def _logits(session: Session, rows: list[Row], bundle: Bundle, most: int) -> list[bytes]:
    """The logit of each row, bit for bit, computed in runs of at most so many rows."""
    text = bundle.manifest.text
    found: dict[int, bytes] = {}
    for length, places in _runs([padded_length(len(row), text.max_length) for row in rows], most):
        logits = session.run(assemble([rows[place] for place in places], text.template, length))
        found |= {place: logit.tobytes() for place, logit in zip(places, logits, strict=True)}
    return [found[index] for index in range(len(rows))]


def test_a_pair_scores_the_same_alone_and_in_any_list(bundle: Bundle) -> None:
    """Bit for bit, a pair's logit does not depend on what it is computed with, nor in which session."""
    first, second = open_sessions(bundle, precision=None, workers=2)
    rows = _rows(bundle)
    alone = _logits(first, rows, bundle, most=1)

    for most, session in ((3, second), (8, first), (100, first)):
        for order in (list(range(len(rows))), np.random.default_rng(most).permutation(len(rows)).tolist()):
            assert [alone[i] for i in order] == _logits(session, [rows[i] for i in order], bundle, most)


@pytest.mark.parametrize(
    ("setting", "device", "offered", "picked"),
    [
        ("default", "cpu", "int8 fp32 fp16", "int8"),
        ("default", "cpu", "fp32 fp16", "fp32"),
        ("default", "cuda", "int8 fp32 fp16", "fp16"),
        ("default", "cuda", "int8 fp32", "fp32"),
        ("default", "cuda", "int8", "int8"),
        ("default", "tensorrt", "int8 fp32 fp16", "fp16"),
        ("int8", "cuda", "int8 fp32 fp16", "int8"),
        ("fp16", "cpu", "int8 fp16", "fp16"),
        ("fp16", "cuda", "int8", "fp16"),
    ],
)
def test_a_device_picks_its_precision(
    tiny_bundle: Path, setting: str, device: Device, offered: str, picked: str
) -> None:
    """`default` is the manifest's on a CPU and fp16, fp32, then the manifest's on a GPU; a name is taken as it is."""
    manifest = read_bundle(tiny_bundle, "tiny").manifest
    graphs = tuple(manifest.graphs[0].model_copy(update={"precision": name}) for name in offered.split())
    changes = {"graphs": graphs, "default_precision": graphs[0].precision}

    assert pick_precision(setting, device, manifest.model_copy(update=changes)) == picked


def test_workers_share_one_session_on_the_cpu(bundle: Bundle) -> None:
    """There is a session for each worker, which is the same: two threads at once get what each gets alone."""
    sessions = open_sessions(bundle, precision=None, workers=2)
    rows = _rows(bundle)
    alone = _logits(sessions[0], rows, bundle, most=8)
    with ThreadPoolExecutor(2) as threads:
        at_once = list(
            threads.map(lambda session: [_logits(session, rows, bundle, 8) for _ in range(5)], sessions)
        )

    assert sessions[0] is sessions[1]
    assert all(logits == alone for found in at_once for logits in found)


def test_an_absent_precision_is_refused(tiny_bundle: Path) -> None:
    """A precision that the bundle does not have is named together with those it has."""
    with pytest.raises(EngineError, match="no int8 graph, it has fp32"):
        open_sessions(read_bundle(tiny_bundle, "tiny"), precision="int8", workers=1)


def test_a_bundle_that_scores_otherwise_is_refused(tiny_bundle: Path) -> None:
    """Golden rows that this runtime does not reproduce stop the opening."""
    bundle = read_bundle(tiny_bundle, "tiny")
    name = bundle.manifest.golden.file
    rows = [json.loads(line) for line in bundle.files[name].splitlines()]
    rows[3]["score"] += 0.01
    changed = "".join(json.dumps(row) + "\n" for row in rows).encode()
    tampered = Bundle(manifest=bundle.manifest, files={**bundle.files, name: changed}, id=bundle.id)

    with pytest.raises(BundleError, match="golden row 4"):
        open_sessions(tampered, precision=None, workers=1)


def test_products_differ(tiny_bundle: Path) -> None:
    """The tiny model tells products apart, so that equal scores in other tests mean something."""
    bundle = read_bundle(tiny_bundle, "tiny")
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
    (session,) = open_sessions(bundle, precision=None, workers=1)
    rows = encoder.encode(
        "red shoes", [Product(title=title) for title in ("red shoes", "coffee mug", "red mug")]
    )
    logits: list[NDArray[np.float32]] = [
        session.run(assemble([row], bundle.manifest.text.template)) for row in rows
    ]

    assert len({logit.tobytes() for logit in logits}) == 3


def test_single_rows_are_doubled_where_they_would_differ(tiny_bundle: Path) -> None:
    """The tiny bundle's graph rounds a batch of one otherwise, and boot finds that out for every session."""
    sessions = open_sessions(read_bundle(tiny_bundle, "tiny"), precision=None, workers=2)

    assert [session.doubles_single_rows for session in sessions] == [True, True]


def test_engines_are_chosen(bundle: Bundle) -> None:
    """`auto` is native where that computes the graph; `onnxruntime` never is; what cannot be is refused with the reason."""
    layout = bundle.manifest.graph().layout
    (auto,) = open_sessions(bundle, precision=None, workers=1, engine="auto")
    (plain,) = open_sessions(bundle, precision=None, workers=1, engine="onnxruntime")

    assert isinstance(plain, CpuSession)
    assert isinstance(auto, CpuSession if why_onnxruntime_is_faster(layout) else NativeSession)
    if reason := why_not(layout):
        with pytest.raises(EngineError, match="engine is native, but") as told:
            open_sessions(bundle, precision=None, workers=1, engine="native")
        assert reason in str(told.value)
    else:
        one, other = open_sessions(bundle, precision=None, workers=2, engine="native")
        assert one is other
        assert isinstance(one, NativeSession)
