"""Runs a bundle's graph on the CPU, one thread to a run: in ONNX Runtime, or in the native engine.

Knows the runtimes; does not know texts, scores or requests.
Invariant: a session runs only after the bundle's golden rows passed on it.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle import Bundle, PairEncoder
from bundle.errors import SessionFailed
from bundle.layout import EncoderLayout
from bundle.manifest import Manifest, TensorSpec
from bundle.rows import assemble, padded_length
from bundle.verify import Session, read_golden, verify_bundle
from service.errors import EngineError
from service.native import words
from service.native.session import NativeSession, why_onnxruntime_is_faster

Device = Literal["cpu", "cuda", "tensorrt"]
Engine = Literal["auto", "onnxruntime", "native"]
_DTYPES: Final = {"tensor(int64)": "int64", "tensor(float)": "float32"}
_WARM_ROWS: Final = (1, 4, 16)
_TIMED_RUNS: Final = 3
_ERRORS_ONLY: Final = 3
_SWITCHED_OFF: Final = "engine is onnxruntime"  # the one switch of all compiled code of ours


class CpuSession:
    """One graph, computed on the thread that asks; several may ask at once."""

    __slots__ = ("_outputs", "_session", "doubles_single_rows", "inputs", "outputs")

    def __init__(self, model: bytes) -> None:
        """Load `model`."""
        self._session = ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
        self.inputs = tuple(map(tensor_spec, self._session.get_inputs()))
        self.outputs = tuple(map(tensor_spec, self._session.get_outputs()))
        self._outputs = [output.name for output in self.outputs]
        self.doubles_single_rows = True

    def run(self, feeds: Mapping[str, NDArray[np.int64]], /) -> NDArray[np.float32]:
        """Return the logits, float32 [n], of feeds int64 [n, length].

        While `doubles_single_rows`, a single row is computed twice over: for a batch of one the runtime may
        take other kernels, which round otherwise, and a pair would score another last bit alone than in a list.
        """
        rows = len(feeds["input_ids"])
        if rows == 1 and self.doubles_single_rows:
            feeds = {name: np.repeat(values, 2, axis=0) for name, values in feeds.items()}
        logits: NDArray[np.float32] = self._session.run(self._outputs, dict(feeds))[0]
        return logits[:rows]


def pick_precision(setting: str, device: Device, manifest: Manifest) -> str:
    """Return the precision that a setting means on a device.

    One that is named is taken as it is. `default` on a GPU is fp16, else fp32, if the bundle has it: what an int8
    graph holds is made for CPUs. It is the manifest's default otherwise.
    """
    if setting != "default":
        return setting
    offered = {graph.precision for graph in manifest.graphs}
    wanted = ("fp16", "fp32") if device != "cpu" else ()
    return next((name for name in wanted if name in offered), manifest.default_precision)


def why_not_native(engine: Engine, layout: EncoderLayout | None) -> str:
    """Say why the native engine does not compute a graph; empty if it is to, even where it cannot be opened."""
    if engine == "onnxruntime":
        return _SWITCHED_OFF
    return "" if engine == "native" else why_onnxruntime_is_faster(layout)


def why_no_words(engine: Engine) -> str:
    """Say why rows are not made by the native table of words; empty if they are."""
    return _SWITCHED_OFF if engine == "onnxruntime" else words.why_not()


def open_sessions(
    bundle: Bundle, *, precision: str | None, workers: int, engine: Engine = "onnxruntime"
) -> Sequence[CpuSession | NativeSession]:
    """Return a warm session for each worker, from the bytes that were hashed.

    It is the same for all: it keeps the weights once, in memory and in the processor's caches, and threads do not wait
    for each other in it. It proves the bundle on its golden rows. Raises BundleError or EngineError.
    """
    manifest = bundle.manifest
    offered = [graph.precision for graph in manifest.graphs]
    if precision is not None and precision not in offered:
        raise EngineError(f"the bundle has no {precision} graph, it has {', '.join(offered)}")
    layout = manifest.graph(precision).layout
    opens: Callable[[bytes], CpuSession | NativeSession] = CpuSession
    if not why_not_native(engine, layout):
        opens = partial(NativeSession, layout)
    try:
        session = verify_bundle(bundle, opens, precision)
    except SessionFailed as error:
        if isinstance(error.__cause__, EngineError):
            raise error.__cause__ from None
        raise
    if isinstance(session, CpuSession):
        session.doubles_single_rows = _single_rows_differ(session, bundle)
    _warm(session, manifest.text.max_length)
    return [session] * workers


def _single_rows_differ(session: CpuSession, bundle: Bundle) -> bool:
    """Find out whether this graph, on this processor, rounds a batch of one otherwise than a larger one.

    The golden rows are asked, since rows of random ids do not show it: where kernels differ, more than half
    of them do.
    """
    manifest = bundle.manifest
    text = manifest.text
    session.doubles_single_rows = False
    encoder = PairEncoder(bundle.files[manifest.tokenizer], text)
    for row in read_golden(bundle.files[manifest.golden.file]):
        encoded = encoder.encode(row.query, [row.product])
        feeds = assemble(encoded, text.template, padded_length(len(encoded[0]), text.max_length))
        twice = {name: np.repeat(values, 2, axis=0) for name, values in feeds.items()}
        if session.run(feeds).tobytes() != session.run(twice)[:1].tobytes():
            return True
    return False


def measure_runs(session: Session, max_length: int) -> Iterator[tuple[int, int, float]]:
    """Time warm runs of several shapes; yield tokens, rows and seconds of each, for a first idea of its costs."""
    for rows, length in itertools.product(_WARM_ROWS, _lengths(max_length)):
        feeds = _ones(rows, length)
        for _ in range(_TIMED_RUNS):
            began_s = time.monotonic()
            session.run(feeds)
            yield rows * length, rows, time.monotonic() - began_s


def _warm(session: Session, max_length: int) -> None:
    """Run small and large shapes once, so that the first request does not pay for allocation."""
    for rows, length in itertools.product(_WARM_ROWS, _lengths(max_length)):
        session.run(_ones(rows, length))


def _lengths(max_length: int) -> list[int]:
    return sorted({padded_length(tokens, max_length) for tokens in (8, 24, 48, max_length)})


def _ones(rows: int, length: int) -> dict[str, NDArray[np.int64]]:
    ones = np.ones((rows, length), dtype=np.int64)
    return {"input_ids": ones, "attention_mask": ones, "token_type_ids": np.zeros_like(ones)}


def session_options() -> ort.SessionOptions:
    """Return what every session of ours asks of the runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.enable_mem_pattern = False  # it keeps a plan for every shape it has seen, without a bound
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def tensor_spec(tensor: ort.NodeArg) -> TensorSpec:
    """Return an input or output of a graph in the words of a manifest."""
    shape = tuple(size if isinstance(size, (str, int)) else "" for size in tensor.shape)
    return TensorSpec.model_construct(
        name=tensor.name, dtype=_DTYPES.get(tensor.type, tensor.type), shape=shape
    )
