"""Measures what this machine can do at most: multiply-adds a second in int8, bf16 and fp32, and bytes read a second.

Knows instructions, threads and the clock; does not know models or lists.
Invariant: every thread of a measurement starts when all are there, on Linux on a CPU of its own.

Where there is a C compiler and an x86-64 processor, benchmarks/engine/peak.c is compiled into a temporary folder: a loop over
registers reaches what the units can do. Anywhere else the largest matrix products of ONNX Runtime stand for it: what a
program reached and not what is possible, so that shares of it are flattering.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from service.process.cpus import allowed_cpus

SOURCE: Final = Path(__file__).with_name("peak.c")
KINDS: Final = ("int8", "bf16", "fp32")
_INSTRUCTIONS_A_ROUND: Final = 24  # of benchmarks/engine/peak.c
_ROUNDS: Final = 400_000  # some milliseconds
_KERNELS: Final = (  # function of benchmarks/engine/peak.c, what the processor needs for it, its operations an instruction
    ("int8", "int8_512", {"avx512_vnni"}, 128),
    ("int8", "int8_256", {"avx_vnni"}, 64),
    ("bf16", "bf16_512", {"avx512_bf16"}, 64),
    ("fp32", "fp32_512", {"avx512f"}, 32),
    ("fp32", "fp32_256", {"fma", "avx2"}, 16),
)
_CACHED_BYTES: Final = 4 << 20
_UNCACHED_BYTES: Final = 256 << 20
_PRODUCT: Final = 1_024  # rows, columns and depth of the stand-in's matrix products


@dataclass(frozen=True, slots=True)
class Work:
    """Something to time: `run` does `amount` operations or bytes."""

    name: str
    amount: float
    run: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be timed here: by kind of arithmetic, and reads by where from; `method` says how."""

    method: str
    notes: tuple[str, ...]
    arithmetic: Mapping[str, Work]
    reads: Mapping[str, Work]


def rate(work: Work, threads: int) -> float:
    """Return amount a second of so many threads together, each on a CPU of its own."""
    cpus = (sorted(allowed_cpus()) or list(range(os.cpu_count() or 1)))[:threads]
    if len(cpus) < threads:
        raise ValueError(f"{threads} threads need as many CPUs, this process has {len(cpus)}")
    ready = threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def measure(cpu: int) -> None:
        if hasattr(os, "sched_setaffinity"):  # elsewhere than on Linux the system places threads as it likes
            os.sched_setaffinity(0, {cpu})  # of this thread alone, which ends with the measurement
        work.run()
        ready.wait()
        began_s = time.perf_counter()
        work.run()
        spans.append((began_s, time.perf_counter()))

    workers = [threading.Thread(target=measure, args=(cpu,)) for cpu in cpus]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * work.amount / (max(end for _, end in spans) - min(began for began, _ in spans))


def explore(folder: Path) -> Machine:
    """Find out what can be timed; `folder` takes the compiled kernels and has to outlive them."""
    flags = cpu_flags()
    library = _compile(folder) if {"avx2", "fma"} <= flags else None
    if library is None:
        why = (
            "no C compiler"
            if platform.machine() in {"x86_64", "AMD64"}
            else f"a {platform.machine()} processor"
        )
        note = f"{why}: the largest products of ONNX Runtime stand for the peaks, which are what it reached, not the limit"
        return Machine("ONNX Runtime", (note, *_missing({"int8", "fp32"})), _products(), {"memory": _copy()})
    found: dict[str, Work] = {}
    for kind, name, needed, operations in _KERNELS:
        if kind not in found and needed <= flags:
            found[kind] = _registers(library, name, operations)
    stand_ins = {} if "int8" in found else {"int8": _products()["int8"]}
    notes = [*_missing({*found, *stand_ins})]
    if stand_ins:
        notes.append("no dot product of bytes: the largest int8 product of ONNX Runtime stands for int8")
    if "amx_int8" in flags:
        notes.append(
            "this processor has AMX, which is faster and not measured: shares are of what its vectors can do"
        )
    reads = {"L3": _read(library, _CACHED_BYTES), "memory": _read(library, _UNCACHED_BYTES)}
    return Machine("registers", tuple(notes), found | stand_ins, reads)


def cpu_flags() -> frozenset[str]:
    """Return what Linux says the processor has; nothing elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def in_temporary_folder(use: Callable[[Path], int]) -> int:
    """Call with a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return use(Path(folder))


def _missing(found: set[str]) -> list[str]:
    return [
        f"no {kind} here: this processor has no instruction for it" for kind in KINDS if kind not in found
    ]


def _compile(folder: Path) -> ctypes.CDLL | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    target = folder / "peak.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(SOURCE)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)  # noqa: S603 - our own source
    except subprocess.SubprocessError:
        return None
    return ctypes.CDLL(str(target))


def _registers(library: ctypes.CDLL, name: str, operations: int) -> Work:
    function = getattr(library, name)
    rounds = ctypes.c_int64(_ROUNDS)
    return Work(name, float(operations * _INSTRUCTIONS_A_ROUND * _ROUNDS), lambda: function(rounds))


def _read(library: ctypes.CDLL, size: int) -> Work:
    """Read a buffer of each thread's own."""
    buffers = threading.local()
    times = max(1, (256 << 20) // size)

    def run() -> None:
        if not hasattr(buffers, "data"):
            buffers.data = np.ones(size, np.uint8)
        address = ctypes.c_void_p(buffers.data.ctypes.data)
        library.read_256(address, ctypes.c_size_t(size), ctypes.c_int64(times))

    return Work(f"read {size >> 20} MiB", float(size * times), run)


def _copy() -> Work:
    """Sum a large array with numpy, which reads it once."""
    data = np.ones(_UNCACHED_BYTES // 8, np.float64)
    return Work("numpy sum", float(data.nbytes), data.sum)


def _products() -> dict[str, Work]:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (_PRODUCT, _PRODUCT), np.int8)
    return {
        "int8": _product(
            "MatMulInteger", weights, np.ones((_PRODUCT, _PRODUCT), np.uint8), TensorProto.INT32
        ),
        "fp32": _product(
            "MatMul", weights.astype(np.float32), np.ones((_PRODUCT, _PRODUCT), np.float32), TensorProto.FLOAT
        ),
    }


def _product(
    operator: str, weights: np.ndarray, rows: np.ndarray, result: "TensorProto.DataType.ValueType"
) -> Work:
    shape: Sequence[int] = rows.shape
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(rows.dtype), shape)],
        [helper.make_tensor_value_info("y", result, shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Work(f"{operator} {_PRODUCT}", 2.0 * _PRODUCT**3, lambda: session.run(None, {"x": rows}))
