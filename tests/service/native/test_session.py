"""Tests of the native engine: what it computes, beside ONNX Runtime, and what it refuses."""

import threading
from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle, PairEncoder, read_bundle
from bundle.errors import SessionFailed
from bundle.rows import Row, Rows, assemble
from bundle.verify import read_golden, verify_bundle
from bundle.words import pack_ids
from service.engine.sessions import CpuSession
from service.errors import EngineError
from service.native import session as native
from service.native.session import NativeSession, why_not, why_onnxruntime_is_faster
from tests.service.native.support import LAYOUT, needs_native
from tests.service.support import ROOT

SHIPPED = sorted(path.parent.name for path in (ROOT / "models").glob("*/manifest.json"))

pytestmark = needs_native


@pytest.fixture(params=SHIPPED)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """Each bundle that is shipped."""
    return read_bundle(ROOT / "models", request.param)


@pytest.fixture
def session(bundle: Bundle) -> NativeSession:
    """The bundle's graph, natively."""
    return NativeSession(bundle.manifest.graph().layout, _file(bundle))


def _file(bundle: Bundle) -> bytes:
    return bundle.files[bundle.manifest.graph().file]


def _rows(bundle: Bundle) -> Rows:
    """The golden pairs, each golden product under one query, and random ids of every length up to the longest."""
    golden = read_golden(bundle.files[bundle.manifest.golden.file])
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
    own = [encoder.encode(row.query, [row.product])[0] for row in golden]
    common = encoder.encode("wireless mouse", [row.product for row in golden])
    draws = np.random.default_rng(5)
    text = bundle.manifest.text
    rows = []
    for length in range(4, text.max_length + 1):
        ids = draws.integers(0, text.vocabulary, length).tolist()
        rows.append(Row(pack_ids(ids), query_tokens=int(draws.integers(1, length)), truncated=False))
    return Rows.of([*own, *common, *rows])


def test_the_shipped_bundles_prove_themselves(bundle: Bundle) -> None:
    """Every golden row has its recorded score, within the manifest's tolerance."""
    layout = bundle.manifest.graph().layout

    assert why_not(layout) == ""
    assert verify_bundle(bundle, lambda file: NativeSession(layout, file)).inputs


def test_logits_are_those_of_the_graph(bundle: Bundle, session: NativeSession) -> None:
    """Differences to ONNX Runtime are far below what the int8 graph is off fp32, and change no order that matters."""
    rows = _rows(bundle)
    graph = CpuSession(_file(bundle))
    exact = np.concatenate([graph.run(assemble([row], bundle.manifest.text.template)) for row in rows])
    ours = session.run_rows(rows, type_ids=True)
    apart = np.abs(ours - exact)

    assert apart.max() < 0.15 * exact.std()
    assert np.sqrt((apart**2).mean()) < 0.02 * exact.std()
    assert np.corrcoef(ours, exact)[0, 1] > 0.999


def test_a_row_has_one_logit(bundle: Bundle, session: NativeSession) -> None:
    """Alone, in any order, in any batch and padded to any length it is the same, bit for bit."""
    rows = _rows(bundle)
    template = bundle.manifest.text.template
    together = session.run_rows(rows, type_ids=True)
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = session.run_rows(rows.take(order.tolist()), type_ids=True)

    assert together[order].tobytes() == shuffled.tobytes()
    for row, logit in zip(rows, together, strict=True):
        assert session.run_rows(Rows.of([row]), type_ids=True).tobytes() == logit.tobytes()
        for longer in (0, 1, 13):
            assert session.run(assemble([row], template, len(row) + longer)).tobytes() == logit.tobytes()


def test_threads_do_not_meet(bundle: Bundle, session: NativeSession) -> None:
    """Four threads on one session get what one alone gets."""
    rows = _rows(bundle)
    alone = session.run_rows(rows, type_ids=True).tobytes()
    found: list[bytes] = []

    def compute() -> None:
        found.extend(session.run_rows(rows, type_ids=True).tobytes() for _ in range(5))

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [alone] * 20


def test_types_count_only_where_there_are_such(session: NativeSession) -> None:
    """A row's second text has type 1, and with a template without types 0."""
    ids = pack_ids(range(1_000, 1_010))
    row = Row(ids, query_tokens=3, truncated=False)
    whole = Row(ids, query_tokens=10, truncated=False)

    assert session.run_rows(Rows.of([row]), type_ids=True) != session.run_rows(Rows.of([row]), type_ids=False)
    assert session.run_rows(Rows.of([row]), type_ids=False) == session.run_rows(
        Rows.of([whole]), type_ids=True
    )


@pytest.mark.parametrize("ids", [[], [-1], [30_522], [1 << 30], [5] * 513])
def test_rows_that_cannot_be_computed_are_refused(session: NativeSession, ids: list[int]) -> None:
    """An empty row, an id outside the vocabulary and a row over the positions are errors, and nothing is read."""
    good = Row(pack_ids([101, 102]), query_tokens=1, truncated=False)
    bad = Row(pack_ids(ids), query_tokens=0, truncated=False)

    with pytest.raises(EngineError, match="a row is empty"):
        session.run_rows(Rows.of([good, bad]), type_ids=True)
    assert np.isfinite(session.run_rows(Rows.of([good]), type_ids=True)).all()


def test_ids_past_32_bits_are_refused(session: NativeSession) -> None:
    """Feeds are 64 bits wide, and an id is not cut to 32 of them."""
    ids = np.array([[101, (1 << 32) + 5]])
    one = np.ones_like(ids)

    with pytest.raises(EngineError, match="no row"):
        session.run({"input_ids": ids, "attention_mask": one, "token_type_ids": 0 * one})


def test_no_rows_no_logits(session: NativeSession) -> None:
    """An empty run is one."""
    assert session.run_rows(Rows.of([]), type_ids=True).shape == (0,)


def test_a_file_that_is_too_short_is_refused(bundle: Bundle) -> None:
    """A layout that points beyond its file gives an error that says so."""
    with pytest.raises(EngineError, match="does not hold"):
        NativeSession(bundle.manifest.graph().layout, _file(bundle)[:1_000])


def test_a_changed_weight_is_found(bundle: Bundle) -> None:
    """Weights at another place than the layout says fail the golden rows, as in any engine."""
    layout = bundle.manifest.graph().layout
    assert layout is not None
    places = dict(layout.tensors)
    one, other = "layers.0.key.weight", "layers.0.value.weight"
    places[one], places[other] = places[other], places[one]
    swapped = layout.model_copy(update={"tensors": places})

    with pytest.raises(Exception, match="golden row"):
        verify_bundle(bundle, lambda file: NativeSession(swapped, file))


def test_why_it_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a layout, a library or the sizes there is a reason, and a session is refused by it."""
    assert LAYOUT is not None
    assert "does not say where" in why_not(None)
    assert "multiples of 16" in why_not(LAYOUT.model_copy(update={"heads": 16}))
    monkeypatch.setattr(native, "library_path", lambda: tmp_path / "absent.so")
    assert "not built" in why_not(LAYOUT)
    with pytest.raises(EngineError, match="engine is native, but the engine is not built"):
        NativeSession(LAYOUT, b"")


def test_a_library_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is no library is a reason, not a crash."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(native, "library_path", lambda: broken)
    native._library.cache_clear()
    try:
        assert "does not load" in why_not(LAYOUT)
    finally:
        native._library.cache_clear()


def test_processors_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI there is no native engine, and with AMX it is not taken by itself."""

    class Library:
        def __init__(self, *, supported: int, tiles: int) -> None:
            self.shelfrank_supported = lambda: supported
            self.shelfrank_has_tiles = lambda: tiles

    monkeypatch.setattr(native, "_library", lambda: Library(supported=0, tiles=0))
    assert "VNNI" in why_onnxruntime_is_faster(LAYOUT)
    monkeypatch.setattr(native, "_library", lambda: Library(supported=1, tiles=1))
    assert "AMX" in why_onnxruntime_is_faster(LAYOUT)
    assert why_not(LAYOUT) == ""
    monkeypatch.setattr(native, "_library", lambda: Library(supported=1, tiles=0))
    assert why_onnxruntime_is_faster(LAYOUT) == ""


def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch, session: NativeSession) -> None:
    """A workspace that cannot be had is told as such."""
    monkeypatch.setattr(native, "_MAX_ROWS", 2**31 - 1)
    found: list[BaseException] = []

    def compute() -> None:
        try:
            session.run_rows(Rows.of([Row(pack_ids([1]), 1, truncated=False)]), type_ids=True)
        except MemoryError as error:
            found.append(error)

    class NoMemory:
        shelfrank_close = None

        @staticmethod
        def shelfrank_open(*_: object) -> None:
            return None

    session._library = NoMemory()  # type: ignore[assignment]
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()

    assert [str(error) for error in found] == ["no memory for the native engine's workspace"]


def test_refusals_reach_whoever_opens(bundle: Bundle) -> None:
    """A graph without a layout is refused with the engine's own sentence as its cause."""
    with pytest.raises(SessionFailed) as told:
        verify_bundle(bundle, lambda file: NativeSession(None, file))

    assert isinstance(told.value.__cause__, EngineError)


def test_products_side_by_side_read_the_same(bundle: Bundle) -> None:
    """Query, key and value are one product, so a layout in which they read other u8 is refused, not computed wrongly."""
    layout = bundle.manifest.graph().layout
    assert layout is not None
    places = dict(layout.tensors)
    places["layers.0.key.step"] = places["layers.0.contract.step"]
    other = layout.model_copy(update={"tensors": places})

    with pytest.raises(EngineError, match=r"query, layers.0.key, layers.0.value do not read the same"):
        NativeSession(other, _file(bundle))
