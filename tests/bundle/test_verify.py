"""A session is handed out only after the bundle has proved itself; each failure has its own error."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto

from bundle import Bundle, read_bundle
from bundle.errors import (
    BundleError,
    GoldenMismatch,
    SessionFailed,
    SignatureMismatch,
    TextContractMismatch,
    TokenizerInvalid,
    VocabularyMismatch,
    WarmupFailed,
)
from bundle.manifest import Manifest, dump_manifest
from bundle.score import class_probabilities
from bundle.store import write_bundle
from bundle.text import PairEncoder, Product
from bundle.verify import GoldenAnswer, GoldenRow, dump_golden, read_golden, scores_of, verify_bundle
from tests.tiny import (
    CALIBRATION,
    LABELS,
    NASTY_PAIRS,
    TinySession,
    graph_onnx,
    tiny_files,
    tiny_manifest,
    tokenizer_json,
)

FILES = tiny_files()
MANIFEST = tiny_manifest(FILES)
VOCABULARY = MANIFEST.text.vocabulary


def _stored(tmp_path: Path, manifest: Manifest = MANIFEST, **files: bytes) -> Bundle:
    """Store a bundle with correct hashes, so that only `verify_bundle` can find what is wrong with it."""
    names = {"model": "model.onnx", "tokenizer": "tokenizer.json", "golden": "golden.jsonl"}
    replaced = {names[short]: data for short, data in files.items()}
    write_bundle(tmp_path, "changed", manifest, {**FILES, **replaced})
    return read_bundle(tmp_path, "changed")


class Changed(TinySession):
    """A tiny session whose logits pass through a function."""

    def __init__(self, graph: bytes, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        """Load the graph and keep the function."""
        super().__init__(graph)
        self._change = change

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the changed logits."""
        return self._change(super().run(feeds))


def test_good_bundle_gives_its_session(tiny_bundle: Path) -> None:
    """The session that proved itself is the one that is returned."""
    bundle = read_bundle(tiny_bundle, "tiny")
    opened = []

    session = verify_bundle(bundle, lambda graph: opened.append(TinySession(graph)) or opened[-1], "fp32")

    assert opened == [session]


def test_session_gets_the_hashed_bytes(tiny_bundle: Path) -> None:
    """The runtime sees the very bytes object that was verified, never a path."""
    bundle = read_bundle(tiny_bundle, "tiny")
    seen = []

    verify_bundle(bundle, lambda graph: seen.append(graph) or TinySession(graph))

    assert seen[0] is bundle.files["model.onnx"]


def test_absent_precision(tiny_bundle: Path) -> None:
    """A precision that the bundle does not carry is a KeyError."""
    with pytest.raises(KeyError):
        verify_bundle(read_bundle(tiny_bundle, "tiny"), TinySession, "int8")


def test_other_text_contract(tmp_path: Path) -> None:
    """A bundle of a later text function is refused."""
    later = MANIFEST.text.model_copy(update={"version": 2})

    with pytest.raises(TextContractMismatch):
        verify_bundle(_stored(tmp_path, MANIFEST.model_copy(update={"text": later})), TinySession)


def test_broken_tokenizer(tmp_path: Path) -> None:
    """A tokenizer that does not load is refused, correct hash or not."""
    with pytest.raises(TokenizerInvalid):
        verify_bundle(_stored(tmp_path, tokenizer=b"{}"), TinySession)


def test_broken_graph(tmp_path: Path) -> None:
    """A graph that the runtime refuses is refused."""
    with pytest.raises(SessionFailed):
        verify_bundle(_stored(tmp_path, model=FILES["model.onnx"][:-100]), TinySession)


@pytest.mark.parametrize(
    "graph",
    [
        graph_onnx(VOCABULARY, inputs=("ids", "attention_mask", "token_type_ids")),
        graph_onnx(VOCABULARY, output="score"),
        graph_onnx(VOCABULARY, output_type=TensorProto.DOUBLE),
        graph_onnx(VOCABULARY, output_type=TensorProto.FLOAT16),
    ],
)
def test_graph_with_another_signature(tmp_path: Path, graph: bytes) -> None:
    """Other names or types than the manifest's are refused."""
    with pytest.raises(SignatureMismatch):
        verify_bundle(_stored(tmp_path, model=graph), TinySession)


def test_signature_that_this_code_cannot_feed(tmp_path: Path) -> None:
    """A manifest and a graph that agree on other inputs are refused all the same."""
    (graph,) = MANIFEST.graphs
    renamed = graph.model_copy(
        update={"inputs": (graph.inputs[0].model_copy(update={"name": "ids"}), *graph.inputs[1:])}
    )
    model = graph_onnx(VOCABULARY, inputs=("ids", "attention_mask", "token_type_ids"))

    with pytest.raises(SignatureMismatch):
        verify_bundle(
            _stored(tmp_path, MANIFEST.model_copy(update={"graphs": (renamed,)}), model=model), TinySession
        )


def test_graph_with_a_smaller_vocabulary(tmp_path: Path) -> None:
    """An embedding table that ends before the manifest's vocabulary is found at load."""
    with pytest.raises(VocabularyMismatch):
        verify_bundle(_stored(tmp_path, model=graph_onnx(VOCABULARY - 1)), TinySession)


def test_tokenizer_with_a_larger_vocabulary(tmp_path: Path) -> None:
    """A tokenizer that was extended after training is refused."""
    extended = tokenizer_json().replace(b'"book":', f'"newword":{VOCABULARY},"book":'.encode())

    with pytest.raises(VocabularyMismatch):
        verify_bundle(_stored(tmp_path, tokenizer=extended), TinySession)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_first_run_without_a_finite_number(tiny_bundle: Path, value: float) -> None:
    """A graph that overflows is refused before a shopper sees it."""
    with pytest.raises(WarmupFailed):
        verify_bundle(
            read_bundle(tiny_bundle, "tiny"), lambda graph: Changed(graph, lambda x: x * np.float32(value))
        )


def test_output_of_another_shape(tiny_bundle: Path) -> None:
    """One logit a row, not a matrix of classes."""
    with pytest.raises(WarmupFailed):
        verify_bundle(read_bundle(tiny_bundle, "tiny"), lambda graph: Changed(graph, lambda x: x[:, None]))


@pytest.mark.parametrize("drift", [1e-3, -1e-3])
def test_scores_that_drifted(tiny_bundle: Path, drift: float) -> None:
    """A runtime that computes something slightly else is refused; the control below is within tolerance."""
    bundle = read_bundle(tiny_bundle, "tiny")

    verify_bundle(bundle, lambda graph: Changed(graph, lambda x: x + np.float32(drift / 1000)))
    with pytest.raises(GoldenMismatch, match="golden row"):
        verify_bundle(bundle, lambda graph: Changed(graph, lambda x: x + np.float32(drift)))


def test_runtime_that_fails_on_a_golden_row(tiny_bundle: Path) -> None:
    """A runtime that survives the warm-up and then fails is refused."""
    calls = iter([False] * 10)

    with pytest.raises(GoldenMismatch, match="cannot be scored"):
        verify_bundle(
            read_bundle(tiny_bundle, "tiny"),
            lambda graph: Changed(
                graph, lambda logits: np.full_like(logits, np.nan) if next(calls, True) else logits
            ),
        )


def test_changed_weights(tmp_path: Path) -> None:
    """Other weights behind the same signature are refused even with correct hashes."""
    with pytest.raises(GoldenMismatch):
        verify_bundle(_stored(tmp_path, model=graph_onnx(VOCABULARY, seed=8)), TinySession)


def test_changed_vocabulary_order(tmp_path: Path) -> None:
    """A tokenizer that swapped two words is refused by the recorded token ids."""
    raw = FILES["tokenizer.json"]
    swapped = raw.replace(b'"red":', b'"@@":').replace(b'"mug":', b'"red":').replace(b'"@@":', b'"mug":')
    assert swapped != raw

    with pytest.raises(GoldenMismatch, match="token ids"):
        verify_bundle(_stored(tmp_path, tokenizer=swapped), TinySession)


def test_changed_text_limits(tmp_path: Path) -> None:
    """Other limits than the golden rows were made with are refused."""
    shorter = MANIFEST.text.model_copy(update={"query_max_tokens": 4})

    with pytest.raises(GoldenMismatch):
        verify_bundle(_stored(tmp_path, MANIFEST.model_copy(update={"text": shorter})), TinySession)


@pytest.mark.parametrize(
    "golden",
    [
        b"",
        FILES["golden.jsonl"] + FILES["golden.jsonl"].splitlines(keepends=True)[0],
        b"{}\n" + FILES["golden.jsonl"],
        b"[]\n",
        b"nonsense\n",
        FILES["golden.jsonl"].replace(b'"title"', b'"price"', 1),
        FILES["golden.jsonl"].replace(b'"query":""', b'"query":1', 1),
        FILES["golden.jsonl"].replace(b'"score":0.', b'"score":0.9', 1),
        FILES["golden.jsonl"].replace(b'"score":0.', b'"score":NaN,"was":0.', 1),
        FILES["golden.jsonl"].replace(b'"classes":{', b'"classes":{"other":0.5,', 1),
        FILES["golden.jsonl"].replace(b'"classes":', b'"class":', 1),
        FILES["golden.jsonl"].replace(b'"logit":', b'"logit":9', 1),
        FILES["golden.jsonl"].replace(b'"logit":', b'"logit":Infinity,"was":', 1),
    ],
)
def test_broken_golden_file(tmp_path: Path, golden: bytes) -> None:
    """Missing, extra, malformed or changed rows are refused."""
    with pytest.raises(GoldenMismatch):
        verify_bundle(_stored(tmp_path, golden=golden), TinySession)


@pytest.mark.parametrize(
    "changed",
    [
        {"calibration": CALIBRATION.model_copy(update={"slope": CALIBRATION.slope + 1e-6})},
        {"calibration": CALIBRATION.model_copy(update={"thresholds": (*CALIBRATION.thresholds[:-1], 9.0)})},
        {"labels": (LABELS[0].model_copy(update={"name": "irrelevanu"}), *LABELS[1:])},
        {"labels": (*LABELS[:-1], LABELS[-1].model_copy(update={"gain": 0.999999}))},
    ],
    ids=["slope", "threshold", "label", "gain"],
)
def test_calibration_and_labels_are_those_that_were_packed(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    """A manifest that turns the same logits into other answers is refused, however small the difference."""
    with pytest.raises(GoldenMismatch, match="calibration or labels"):
        verify_bundle(_stored(tmp_path, MANIFEST.model_copy(update=changed)), TinySession)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_manifest_changes_no_answer(tiny_bundle: Path, place: float, bit: int) -> None:
    """Of one flipped bit in what the manifest says of answers, the bundle is refused or answers as before."""
    raw = bytearray(dump_manifest(read_bundle(tiny_bundle, "tiny").manifest))
    parts = [re.search(part, bytes(raw)) for part in (rb'"calibration":{.*?}', rb'"labels":\[.*?\]')]
    spots = [spot for part in parts if part for spot in range(part.start(), part.end())]
    raw[spots[int(place * len(spots))]] ^= 1 << bit
    root = tiny_bundle.parent / "flipped"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(tiny_bundle, root)
    (root / "tiny" / "manifest.json").write_bytes(raw)
    try:
        changed = read_bundle(root, "tiny")
        verify_bundle(changed, TinySession)
    except BundleError:
        return
    logits = np.linspace(-9, 9, 50)
    before, after = (class_probabilities(logits, m.calibration) for m in (MANIFEST, changed.manifest))
    assert np.abs(before - after).max() < 1e-7
    assert [label.name for label in changed.manifest.labels] == [label.name for label in LABELS]


def test_golden_rows_of_older_bundles_have_no_answer(tmp_path: Path) -> None:
    """A golden file from before logits were recorded is read, and checked as it was then."""
    older = [dataclasses.replace(row, answer=None) for row in read_golden(FILES["golden.jsonl"])]

    verify_bundle(_stored(tmp_path, golden=dump_golden(older)), TinySession)


def test_golden_rows_cover_the_nasty_pairs() -> None:
    """What clients really send is in the file, lone surrogates and all."""
    rows = read_golden(FILES["golden.jsonl"])

    assert tuple((row.query, row.product) for row in rows)[: len(NASTY_PAIRS)] == NASTY_PAIRS
    assert len(rows) == MANIFEST.golden.rows >= 32


@given(
    st.lists(
        st.builds(
            GoldenRow,
            query=st.text(st.characters(exclude_categories=())),
            product=st.builds(Product, title=st.text(st.characters(exclude_categories=()))),
            ids=st.lists(st.integers(0, 1 << 20)).map(tuple),
            score=st.floats(0, 1),
            answer=st.none()
            | st.builds(GoldenAnswer, st.floats(-9, 9), st.dictionaries(st.text(), st.floats(0, 1))),
        )
    )
)
def test_golden_round_trip(rows: list[GoldenRow]) -> None:
    """Any texts survive the golden file."""
    assert read_golden(dump_golden(rows)) == rows


def test_score_follows_the_overlap(tiny_bundle: Path) -> None:
    """The tiny model ranks what matches above what does not, so tests on it mean something."""
    bundle = read_bundle(tiny_bundle, "tiny")
    session = verify_bundle(bundle, TinySession)
    products = [
        Product(title="red running shoes"),
        Product(title="running socks"),
        Product(title="steel kettle"),
    ]
    rows = PairEncoder(bundle.files["tokenizer.json"], bundle.manifest.text).encode(
        "red running shoes", products
    )

    scores = scores_of(session, rows, bundle.manifest).tolist()

    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5 > scores[2]


def test_every_refusal_is_a_bundle_error() -> None:
    """A caller that fails closed needs to catch one class."""
    for error in (GoldenMismatch, SessionFailed, SignatureMismatch, VocabularyMismatch, WarmupFailed):
        assert issubclass(error, BundleError)
