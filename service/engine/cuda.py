"""Runs a bundle's graph on an NVIDIA GPU, by ONNX Runtime's CUDA or TensorRT provider.

Knows the runtime, its GPU providers and fixed shapes; does not know texts, scores or requests.
Invariant: a session computes on the GPU alone; what would fall back to the CPU is refused before it serves.

Inputs and logits lie in buffers on the device that are made once for each shape. On CUDA the work of a shape is captured
once as a CUDA graph and replayed after that: one launch in place of some hundred. The runtime keeps captured graphs for
the thread that captured them, so each session has a thread of its own. TensorRT brings its own plan of
the work; its provider captures one shape a session at most, so nothing is captured there.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle import Bundle
from bundle.errors import SessionFailed
from bundle.verify import INPUT_NAMES, OUTPUT_NAME, verify_bundle
from service.engine.sessions import session_options, tensor_spec
from service.engine.shapes import Shape, ShapeSet, blank, pad
from service.errors import EngineError

Gpu = Literal["cuda", "tensorrt"]
Feeds = Mapping[str, NDArray[np.int64]]

CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
_PROVIDERS: Final[Mapping[Gpu, str]] = {"cuda": CUDA, "tensorrt": TENSORRT}
_HEAVY: Final = ("MatMul", "Gemm", "Attention", "Softmax", "Norm", "Conv")
"""In the names of operators that have to be on the GPU; arithmetic on shapes is left to the CPU on purpose."""

_TIMED_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the buffers of a session are, and whether the work of a shape is captured as a CUDA graph."""

    memory: Literal["cpu", "cuda"]
    captures: bool


ON: Final[Mapping[Gpu, Placement]] = {
    "cuda": Placement("cuda", captures=True),
    "tensorrt": Placement("cuda", captures=False),
}


class BoundSession:
    """One graph whose inputs and logits are bound to fixed buffers, a set of them for each shape.

    Any thread may ask; the session's own thread computes. Rows are padded up to the nearest shape, and the logits of
    what was added are cut off.
    """

    __slots__ = ("_bound", "_pad_id", "_placement", "_session", "_thread", "inputs", "outputs", "shapes")

    def __init__(
        self,
        open_session: Callable[[], ort.InferenceSession],
        shapes: ShapeSet,
        placement: Placement,
        *,
        pad_id: int,
    ) -> None:
        """Open the session on its thread; what `open_session` raises comes through."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu")
        self._session = self._thread.submit(open_session).result()
        self._placement = placement
        self._pad_id = pad_id
        self._bound: dict[Shape, _Bound] = {}  # at most one for each shape of the set
        self.shapes = shapes
        self.inputs = tuple(map(tensor_spec, self._session.get_inputs()))
        self.outputs = tuple(map(tensor_spec, self._session.get_outputs()))

    def run(self, feeds: Feeds, /) -> NDArray[np.float32]:
        """Return the logits, float32 [n], of feeds int64 [n, length]; ValueError if the rows are too long."""
        rows, length = feeds[INPUT_NAMES[0]].shape
        wide = self.shapes.length_of(length)
        running = []
        for part in self.shapes.parts(rows, wide):
            few = {name: values[part] for name, values in feeds.items()}
            count = part.stop - part.start
            shape = self.shapes.shape_of(count, wide)
            running.append((self._thread.submit(self._compute, shape, pad(few, shape, self._pad_id)), count))
        return np.concatenate([logits.result()[:count] for logits, count in running])

    def warm(self) -> None:
        """Run every shape once, the largest first: makes its buffers, and captures its graph where that is done."""
        for shape in self.shapes.all():
            self.run(blank(shape))

    def timings(self) -> Iterator[tuple[int, int, float]]:
        """Time warm runs of every shape; yield tokens, rows and seconds of each, for a first idea of its costs."""
        for shape in self.shapes.all():
            for _ in range(_TIMED_RUNS):
                began_s = time.monotonic()
                self.run(blank(shape))
                yield shape.tokens, shape.rows, time.monotonic() - began_s

    def _compute(self, shape: Shape, feeds: Feeds) -> NDArray[np.float32]:
        """Fill the buffers of a shape, run it and return a copy of its logits; on the session's own thread."""
        if shape not in self._bound:
            number = len(self._bound) + 1  # the runtime keeps 0 for itself
            self._bound[shape] = _Bound(self._session, shape, self._placement, number)
        return self._bound[shape].run(self._session, feeds)


class _Bound:
    """The buffers of one shape, and what the runtime needs to find them: a captured graph knows them by address."""

    __slots__ = ("_binding", "_inputs", "_logits", "_options")

    def __init__(
        self, session: ort.InferenceSession, shape: Shape, placement: Placement, number: int
    ) -> None:
        def buffer(size: list[int], dtype: type[np.generic]) -> ort.OrtValue:
            return ort.OrtValue.ortvalue_from_shape_and_type(size, dtype, placement.memory, 0)

        self._inputs = {name: buffer([shape.rows, shape.length], np.int64) for name in INPUT_NAMES}
        self._logits = buffer([shape.rows], np.float32)
        self._binding = session.io_binding()
        for name, values in self._inputs.items():
            self._binding.bind_ortvalue_input(name, values)
        self._binding.bind_ortvalue_output(OUTPUT_NAME, self._logits)
        self._options = ort.RunOptions()
        if placement.captures:
            self._options.add_run_config_entry("gpu_graph_id", str(number))

    def run(self, session: ort.InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        for name, values in self._inputs.items():
            values.update_inplace(feeds[name])
        session.run_with_iobinding(self._binding, self._options)
        logits: NDArray[np.float32] = self._logits.numpy()
        return logits.copy()  # of buffers in main memory the runtime may give a view


def open_gpu_session(
    bundle: Bundle, *, precision: str | None, device: Gpu, shapes: ShapeSet, cache: Path | None
) -> BoundSession:
    """Return a warm session that has proved the bundle on its golden rows; BundleError or EngineError.

    `cache` is where TensorRT keeps the engines that it builds, which takes it minutes; None keeps none.
    """
    manifest = bundle.manifest
    offered = [graph.precision for graph in manifest.graphs]
    wanted = precision or manifest.default_precision
    if wanted not in offered:
        raise EngineError(f"the bundle has no {wanted} graph, it has {', '.join(offered)}")
    if wanted == "int8":
        raise EngineError(
            f"device is {device}, and an int8 graph is made for CPUs: an fp16 or fp32 graph is needed"
        )

    def opener(model: bytes) -> BoundSession:
        providers = gpu_providers(device, wanted, shapes, _cache_of(model, cache))
        opened = partial(_open, model, device, providers)
        return BoundSession(opened, shapes, ON[device], pad_id=manifest.text.template.pad_id)

    try:
        session = verify_bundle(bundle, opener, wanted)
    except SessionFailed as error:
        if isinstance(error.__cause__, EngineError):
            raise error.__cause__ from None
        raise
    session.warm()
    return session


def gpu_providers(
    device: Gpu, precision: str, shapes: ShapeSet, cache: Path | None
) -> list[tuple[str, dict[str, str]]]:
    """Return the runtime's providers for a device and their options, in the order in which they may take nodes."""
    cuda = {
        "use_tf32": "0",  # fp32 is meant as such: the golden scores were recorded in it
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1" if ON[device].captures else "0",
    }
    if device == "cuda":
        return [(CUDA, cuda)]
    every = shapes.all()
    most = Shape(max(shape.length for shape in every), max(shape.rows for shape in every))
    least = Shape(min(shape.length for shape in every), min(shape.rows for shape in every))
    tensorrt = {
        "trt_fp16_enable": str(precision == "fp16"),
        "trt_layer_norm_fp32_fallback": "True",
        "trt_profile_min_shapes": _profile(least),
        "trt_profile_opt_shapes": _profile(every[len(every) // 2]),
        "trt_profile_max_shapes": _profile(most),
    }
    if cache is not None:
        tensorrt |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(cache)}
        tensorrt |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(cache)}
    return [(TENSORRT, tensorrt), (CUDA, cuda)]


def nodes_elsewhere(session: ort.InferenceSession, provider: str) -> list[str]:
    """Return the operators of weight that some other provider computes, each with its provider."""
    return sorted(
        {
            f"{node.op_type} ({part.ep_name})"
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name != provider
            for node in part.get_nodes()
            if any(word in node.op_type for word in _HEAVY)
        }
    )


def _open(model: bytes, device: Gpu, providers: Iterable[tuple[str, dict[str, str]]]) -> ort.InferenceSession:
    """Return a session that is on the device, whole; EngineError otherwise."""
    wanted = _PROVIDERS[device]
    if wanted not in ort.get_available_providers():
        raise EngineError(f"device is {device}, but this build of the runtime has no {wanted}")
    ort.preload_dlls()  # the CUDA libraries that come as wheels are not found without this
    options = session_options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(model, options, providers=list(providers), enable_fallback=False)
    except Exception as error:  # a runtime may raise anything
        raise EngineError(f"device is {device}, but the runtime refused: {_first_line(error)}") from error
    landed = session.get_providers()[0]
    if landed != wanted:  # the runtime falls back to the CPU and only prints a warning
        raise EngineError(
            f"device is {device}, but the runtime fell back to {landed}: no GPU, driver or library for it"
        )
    elsewhere = nodes_elsewhere(session, wanted)
    if elsewhere:
        raise EngineError(f"device is {device}, but parts of the graph fell back: {', '.join(elsewhere)}")
    return session


def _cache_of(model: bytes, cache: Path | None) -> Path | None:
    """Return a folder of the cache for this graph alone: the runtime distinguishes engines by names, not by weights."""
    if cache is None:
        return None
    folder = cache / hashlib.sha256(model).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _profile(shape: Shape) -> str:
    return ",".join(f"{name}:{shape.rows}x{shape.length}" for name in INPUT_NAMES)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:600]
