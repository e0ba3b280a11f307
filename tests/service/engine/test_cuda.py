"""Tests of service/engine/cuda.py: all of it but the GPU, which the CPU provider stands in for."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bundle import Bundle, PairEncoder, read_bundle
from bundle.errors import BundleError
from bundle.rows import assemble
from bundle.verify import INPUT_NAMES, read_golden
from service.engine import cuda
from service.engine.cuda import BoundSession, Gpu, Placement, gpu_providers, nodes_elsewhere, open_gpu_session
from service.engine.sessions import CpuSession, session_options
from service.engine.shapes import Shape, blank, make_shapes, pad
from service.errors import EngineError
from tests.service.support import ROOT, WAIT_S

SHIPPED = sorted(path.parent for path in (ROOT / "models").glob("*/manifest.json"))
CPU = "CPUExecutionProvider"
HERE = Placement("cpu", captures=True)
PAD = 0
SHAPES = make_shapes(48, 1_024)  # of the bundle made for tests
Feeds = dict[str, NDArray[np.int64]]


@pytest.fixture(params=[None, *SHIPPED], ids=lambda path: path.name if path else "made for tests")
def bundle(request: pytest.FixtureRequest, tiny_bundle: Path) -> Bundle:
    """The bundle made for tests, then each that is shipped."""
    if request.param is None:
        return read_bundle(tiny_bundle, "tiny")
    return read_bundle(request.param.parent, request.param.name)


def _open(model: bytes) -> Callable[[], ort.InferenceSession]:
    return lambda: ort.InferenceSession(model, session_options(), providers=[CPU])


def _opened(
    bundle: Bundle, device: Gpu, *, precision: str | None = None, cache: Path | None = None
) -> BoundSession:
    return open_gpu_session(bundle, precision=precision, device=device, shapes=SHAPES, cache=cache)


def _default_graph(bundle: Bundle) -> bytes:
    return bundle.files[bundle.manifest.graph(None).file]


def _feeds(bundle: Bundle, length: int) -> Feeds:
    """The golden rows of up to a length, padded to it."""
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
    golden = read_golden(bundle.files[bundle.manifest.golden.file])
    rows = [row for pair in golden for row in encoder.encode(pair.query, [pair.product])]
    return assemble([row for row in rows if len(row) <= length], bundle.manifest.text.template, length)


def _few(feeds: Feeds, rows: int) -> Feeds:
    return {name: values[:rows] for name, values in feeds.items()}


def test_bound_buffers_give_what_a_plain_run_gives(bundle: Bundle) -> None:
    """Bit for bit the logits of the plain session for the padded rows, and near them for the rows as they were."""
    plain = CpuSession(_default_graph(bundle))
    shapes = make_shapes(bundle.manifest.text.max_length, 4_096)
    session = BoundSession(_open(_default_graph(bundle)), shapes, HERE, pad_id=PAD)
    for length in shapes.lengths[:2]:
        feeds = _feeds(bundle, length - 8)
        rows = len(feeds["input_ids"])
        padded = plain.run(pad(feeds, shapes.shape_of(rows, length), PAD))[:rows]

        assert session.run(feeds).tobytes() == padded.tobytes()
        assert np.abs(padded - plain.run(feeds)).max() < (
            0.05 if bundle.manifest.default_precision == "int8" else 1e-5
        )


def test_what_is_added_changes_no_score(bundle: Bundle) -> None:
    """Bit for bit, a row's logit is the same whatever shape its run was padded up to, alone or among many."""
    shapes = make_shapes(bundle.manifest.text.max_length, 4_096)
    session = BoundSession(_open(_default_graph(bundle)), shapes, HERE, pad_id=PAD)
    feeds = _feeds(bundle, 32)
    together = session.run(feeds)
    counts = (1, 7, 8, 9, 20, len(together))

    assert all(session.run(_few(feeds, count)).tobytes() == together[:count].tobytes() for count in counts)


def test_more_rows_than_a_run_may_have_are_cut(tiny_bundle: Path) -> None:
    """A list beyond the largest shape is computed in several runs and comes back in its order."""
    bundle = read_bundle(tiny_bundle, "tiny")
    session = BoundSession(_open(_default_graph(bundle)), SHAPES, HERE, pad_id=PAD)
    many = {name: np.tile(values, (5, 1)) for name, values in _feeds(bundle, 48).items()}

    assert len(many["input_ids"]) > 4 * session.shapes.most_rows(48)
    assert session.run(many).tobytes() == CpuSession(_default_graph(bundle)).run(many).tobytes()


def test_rows_that_are_too_long_are_refused(tiny_bundle: Path) -> None:
    """A row beyond the longest length has no buffers."""
    model = _default_graph(read_bundle(tiny_bundle, "tiny"))
    session = BoundSession(_open(model), SHAPES, HERE, pad_id=PAD)

    with pytest.raises(ValueError, match="at most 48 tokens"):
        session.run(blank(Shape(length=49, rows=1)))


def _mean_id_graph() -> bytes:
    """A graph whose logit is the mean id in sight: 0 / 0 where nothing is."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["ids", "mask"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axis"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "axis"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in INPUT_NAMES]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n"])]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "mean", inputs, logits, [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_no_row_that_is_added_is_nan() -> None:
    """Where a graph divides by what is in sight, padded rows are finite; rows that see nothing would not be."""
    session, plain = (
        BoundSession(_open(_mean_id_graph()), make_shapes(32, 1_024), HERE, pad_id=PAD),
        CpuSession(_mean_id_graph()),
    )
    shape = Shape(length=32, rows=8)
    padded = pad(blank(Shape(length=8, rows=3)), shape, PAD)
    blind = padded | {"attention_mask": np.zeros_like(padded["attention_mask"])}

    assert session.run(padded).tolist() == [1.0] * 3 + [0.0] * 5
    assert np.isnan(plain.run(blind)).all()


def test_buffers_are_made_once_and_all_of_them_by_warm_up(tiny_bundle: Path) -> None:
    """Warm-up has every shape in place, each under a number of its own, and no run after it makes any."""
    bundle = read_bundle(tiny_bundle, "tiny")
    session = BoundSession(_open(_default_graph(bundle)), SHAPES, HERE, pad_id=PAD)
    session.warm()
    before = dict(session._bound)
    for rows in (1, 9, 30):
        session.run(_few(_feeds(bundle, 48), rows))
    numbers = [bound._options.get_run_config_entry("gpu_graph_id") for bound in before.values()]

    assert set(session.shapes.all()) == before.keys()
    assert session._bound == before
    assert numbers == [str(number) for number in range(1, len(before) + 1)]


def test_where_nothing_is_captured_no_number_is_given(tiny_bundle: Path) -> None:
    """TensorRT's runs carry no graph number."""
    model = _default_graph(read_bundle(tiny_bundle, "tiny"))
    session = BoundSession(_open(model), SHAPES, Placement("cpu", captures=False), pad_id=PAD)
    session.run(blank(Shape(length=32, rows=8)))
    (bound,) = session._bound.values()

    with pytest.raises(RuntimeError, match="gpu_graph_id"):
        bound._options.get_run_config_entry("gpu_graph_id")


class _Watched(ort.InferenceSession):
    """A session that notes which threads open and run it."""

    threads: set[int]

    def __init__(self, model: bytes) -> None:
        super().__init__(model, session_options(), providers=[CPU])
        self.threads = {threading.get_ident()}

    def run_with_iobinding(self, *told: Any) -> None:
        self.threads.add(threading.get_ident())
        super().run_with_iobinding(*told)


def test_one_thread_computes_for_all_who_ask(tiny_bundle: Path) -> None:
    """Four threads that ask at once each get their own logits, and the session sees no thread but its own."""
    bundle = read_bundle(tiny_bundle, "tiny")
    watched: list[_Watched] = []

    def opened() -> ort.InferenceSession:
        watched.append(_Watched(_default_graph(bundle)))
        return watched[0]

    session = BoundSession(opened, SHAPES, HERE, pad_id=PAD)
    feeds = _feeds(bundle, 48)
    asked = [
        {name: values[start : start + 5] for name, values in feeds.items()} for start in range(0, 20, 5)
    ] * 10
    alone = [session.run(each).tobytes() for each in asked]
    with ThreadPoolExecutor(4) as threads:
        at_once = [logits.tobytes() for logits in threads.map(session.run, asked)]

    assert alone == at_once
    assert len(watched[0].threads) == 1
    assert threading.get_ident() not in watched[0].threads


def test_a_session_that_nobody_holds_ends_its_thread(tiny_bundle: Path) -> None:
    """A model that was replaced leaves no thread behind, and so no session."""
    watched: list[threading.Thread] = []

    def opened() -> ort.InferenceSession:
        watched.append(threading.current_thread())
        return _open(_default_graph(read_bundle(tiny_bundle, "tiny")))()

    session = BoundSession(opened, SHAPES, HERE, pad_id=PAD)
    session.run(blank(Shape(length=32, rows=8)))
    del session
    watched[0].join(WAIT_S)

    assert not watched[0].is_alive()


def test_costs_are_timed_at_every_shape(tiny_bundle: Path) -> None:
    """What a run costs is told for each shape of the set, by its padded tokens and rows."""
    model = _default_graph(read_bundle(tiny_bundle, "tiny"))
    session = BoundSession(_open(model), SHAPES, HERE, pad_id=PAD)
    timings = list(session.timings())

    assert {(shape.tokens, shape.rows) for shape in session.shapes.all()} == {
        (each[0], each[1]) for each in timings
    }
    assert all(seconds > 0 for _, _, seconds in timings)


def test_cuda_captures_graphs_and_keeps_fp32_whole() -> None:
    """The CUDA provider is asked for alone, with graphs on and without TF32."""
    ((name, options),) = gpu_providers("cuda", "fp16", make_shapes(128, 16_384), None)

    assert name == "CUDAExecutionProvider"
    assert (options["enable_cuda_graph"], options["use_tf32"]) == ("1", "0")


@pytest.mark.parametrize(("precision", "half"), [("fp16", "True"), ("fp32", "False")])
def test_tensorrt_is_told_its_shapes(tmp_path: Path, precision: str, half: str) -> None:
    """TensorRT comes before CUDA, without CUDA's graphs; its profile holds every shape, its engines go to the cache."""
    shapes = make_shapes(128, 16_384)
    (tensorrt, options), (second, plain) = gpu_providers("tensorrt", precision, shapes, tmp_path)
    bounds = {
        bound: {
            tuple(map(int, each.split(":")[1].split("x")))
            for each in options[f"trt_profile_{bound}_shapes"].split(",")
        }
        for bound in ("min", "opt", "max")
    }
    ((fewest, shortest),), ((rows, length),), ((most, longest),) = bounds["min"], bounds["opt"], bounds["max"]

    assert (tensorrt, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert plain["enable_cuda_graph"] == "0"
    assert options["trt_fp16_enable"] == half
    assert (options["trt_engine_cache_enable"], options["trt_engine_cache_path"]) == ("True", str(tmp_path))
    assert all(fewest <= shape.rows <= most and shortest <= shape.length <= longest for shape in shapes.all())
    assert Shape(length, rows) in shapes.all()
    assert [each.split(":")[0] for each in options["trt_profile_min_shapes"].split(",")] == list(INPUT_NAMES)


def test_without_a_cache_tensorrt_writes_nothing() -> None:
    """No option names a path unless one was set."""
    _, options = gpu_providers("tensorrt", "fp16", make_shapes(128, 16_384), None)[0]

    assert [name for name in options if "cache" in name or "path" in name] == []


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_that_is_not_there_is_refused(tiny_bundle: Path, device: Gpu) -> None:
    """On a machine or a build without it, the error names the device that was asked for."""
    with pytest.raises(EngineError, match=f"device is {device}, but"):
        _opened(read_bundle(tiny_bundle, "tiny"), device)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_silent_fall_back_is_refused(
    tiny_bundle: Path, stand_in: list[dict[str, Any]], device: Gpu
) -> None:
    """A runtime that has the provider but lands on the CPU all the same does not serve, and is not let try again."""
    with pytest.raises(EngineError, match="fell back to CPUExecutionProvider"):
        _opened(read_bundle(tiny_bundle, "tiny"), device)
    assert stand_in[0]["enable_fallback"] is False
    assert stand_in[0]["providers"] == gpu_providers(device, "fp32", SHAPES, None)


@pytest.mark.parametrize("name", SHIPPED, ids=lambda path: path.name)
def test_parts_of_a_graph_that_fell_back_are_named(name: Path) -> None:
    """Matrix products of a real model that some other provider computes are found, and none on their own."""
    bundle = read_bundle(name.parent, name.name)
    options = session_options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(_default_graph(bundle), options, providers=[CPU])

    assert any("MatMul" in each and CPU in each for each in nodes_elsewhere(session, cuda.CUDA))
    assert nodes_elsewhere(session, CPU) == []


@pytest.mark.usefixtures("as_gpu")
def test_a_graph_in_parts_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is on the device, but not with all of its graph, does not serve."""
    monkeypatch.setattr(cuda, "nodes_elsewhere", lambda *_: ["MatMul (CPUExecutionProvider)"])

    with pytest.raises(EngineError, match="parts of the graph fell back: MatMul"):
        _opened(read_bundle(tiny_bundle, "tiny"), "cuda")


def test_what_the_runtime_refuses_is_told(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of the runtime's own words comes with the error."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no capture: all compute nodes have not been partitioned\nsecond line")

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [cuda.CUDA])

    with pytest.raises(
        EngineError, match=r"refused: no capture: all compute nodes have not been partitioned$"
    ):
        _opened(read_bundle(tiny_bundle, "tiny"), "cuda")


@pytest.mark.parametrize(
    ("precision", "message"), [("int8", "made for CPUs"), ("fp16", "has no fp16 graph, it has")]
)
def test_a_graph_that_is_not_for_gpus_is_refused(tiny_bundle: Path, precision: str, message: str) -> None:
    """An int8 graph and an absent precision stop the opening before the runtime is asked."""
    whole = read_bundle(tiny_bundle, "tiny")
    graph = whole.manifest.graphs[0].model_copy(update={"precision": "int8"})
    manifest = whole.manifest.model_copy(update={"graphs": (graph,), "default_precision": "int8"})

    with pytest.raises(EngineError, match=message):
        _opened(Bundle(manifest, whole.files, whole.id), "cuda", precision=precision)


def test_a_gpu_session_proves_the_bundle_and_is_warm(tiny_bundle: Path, as_gpu: list[dict[str, Any]]) -> None:
    """What opens has passed the golden rows through its buffers, and has all of them."""
    session = _opened(read_bundle(tiny_bundle, "tiny"), "cuda")

    assert set(SHAPES.all()) == session._bound.keys()
    assert len(as_gpu) == 1


@pytest.mark.usefixtures("as_gpu")
def test_a_bundle_that_scores_otherwise_is_refused(tiny_bundle: Path) -> None:
    """Golden rows that this device does not reproduce stop the opening."""
    whole = read_bundle(tiny_bundle, "tiny")
    name = whole.manifest.golden.file
    tampered = whole.files | {name: whole.files[name].replace(b'"score":0.', b'"score":0.9', 1)}

    with pytest.raises(BundleError, match="golden row"):
        _opened(Bundle(whole.manifest, tampered, whole.id), "cuda")


def test_each_graph_has_a_cache_of_its_own(
    tiny_bundle: Path, tmp_path: Path, as_gpu: list[dict[str, Any]]
) -> None:
    """Engines of two graphs that differ in their weights alone never meet in one folder."""
    whole = read_bundle(tiny_bundle, "tiny")
    name = whole.manifest.graphs[0].file
    folders = [cuda._cache_of(model, tmp_path) for model in (whole.files[name], whole.files[name] + b"\n")]
    _opened(whole, "tensorrt", cache=tmp_path)

    assert len({*folders}) == 2
    assert as_gpu[0]["providers"][0][1]["trt_engine_cache_path"] == str(folders[0])
