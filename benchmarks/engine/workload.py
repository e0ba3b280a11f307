"""Lists of real products as rows, and the service's engine to compute them with, without the rest of a service.

Knows a bundle's encoder, the service's workers, scheduler and sessions; does not know HTTP, tokenizing time or figures.
Invariant: rows go to the sessions in the runs that the service would make of them, on as many threads.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.engine.bound import Shape
from benchmarks.shared.products import make_bodies, read_products
from benchmarks.shared.target import REPOSITORY
from bundle import Bundle, PairEncoder, Product, read_bundle
from bundle.rows import Rows
from bundle.verify import Session
from service.engine.model import LoadedModel
from service.engine.sessions import CpuSession, Engine, open_sessions
from service.process.cpus import cpus_to_pin
from service.scoring.queue_entry import QueueEntry
from service.scoring.worker import WorkerPool

MODELS: Final = REPOSITORY / "models"
Feeds = Mapping[str, NDArray[np.int64]]
_PATIENCE_S: Final = 60.0
_FIRST_COST_S: Final = 0.05
_TENANT: Final = "default"


def make_lists(bundle: Bundle, size: int, count: int, seed: int) -> list[Rows]:
    """Return lists of `size` real products with a query each, as rows of the bundle's encoder."""
    products = read_products()
    bodies = make_bodies(products, size, random.Random(seed))[:count]  # noqa: S311 - load, not secrets
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
    asked = map(json.loads, bodies)
    return [encoder.encode(body["query"], [Product(**each) for each in body["documents"]]) for body in asked]


def read_shape(graph: bytes) -> Shape:
    """Return the shape of a BERT encoder from its graph: of the weights [in, out] of a layer one contracts to hidden."""
    model = onnx.load_from_string(graph)
    factors = {node.input[1] for node in model.graph.node if node.op_type.startswith("MatMul")}
    sides = [
        tuple(each.dims) for each in model.graph.initializer if each.name in factors and min(each.dims) > 1
    ]
    hidden = min(side for pair in sides for side in pair)
    contracting = [pair for pair in sides if pair[0] > pair[1] == hidden]
    if not contracting:
        raise ValueError("the graph is not of a BERT encoder")
    return Shape(len(contracting), hidden, contracting[0][0])


@dataclass(slots=True)
class Recorder:
    """A session that keeps the feeds it has seen."""

    inner: CpuSession
    seen: list[Feeds]

    def run(self, feeds: Feeds, /) -> NDArray[np.float32]:
        """Pass on, and keep."""
        self.seen.append(feeds)
        return self.inner.run(feeds)


@contextmanager
def running(bundle: Bundle, session: Session, workers: int) -> Iterator[Callable[[Rows], float]]:
    """Start the service's workers over one graph; give what computes a list and returns how many seconds it took.

    That is from handing the list over to its last logit, one list at a time. The bundle tells how long rows may be.
    """
    model = LoadedModel(bundle, "int8", "cpu", [session] * workers)
    failures: list[Exception] = []
    pool = WorkerPool(
        workers, {_TENANT: 1.0}, on_drop=lambda: None, on_error=failures.append, cpus=cpus_to_pin(workers)
    )

    def seconds(rows: Rows) -> float:
        work = _List(rows, model.padded_lengths(rows.lengths))
        deadline_s = time.monotonic() + _PATIENCE_S
        began_s = time.perf_counter()
        pool.submit(QueueEntry(work, model, 0, _TENANT, deadline_s, _FIRST_COST_S, model.costs.seconds))
        if not work.done.wait(_PATIENCE_S) or work.left:
            raise RuntimeError("the engine did not compute the list") from next(iter(failures), None)
        return time.perf_counter() - began_s

    pool.start()
    try:
        yield seconds
    finally:
        pool.stop(_PATIENCE_S)


def open_bundle(name: str, root: Path = MODELS, engine: Engine = "auto") -> tuple[Bundle, Session]:
    """Return a bundle and the session that the service would open for it on the CPU."""
    bundle = read_bundle(root, name)
    return bundle, open_sessions(bundle, precision=None, workers=1, engine=engine)[0]


class _List:
    """A request whose rows are there already."""

    def __init__(self, rows: Rows, lengths: list[int]) -> None:
        self.done = threading.Event()
        self._rows = rows
        self._lengths = lengths
        self.left = len(rows)
        self._lock = threading.Lock()  # guards `left`

    def tokenize(self) -> Sequence[int]:
        return self._lengths

    def rows(self, places: Sequence[int]) -> Rows:
        return self._rows.take(places)

    def deliver(self, places: Sequence[int], logits: NDArray[np.float32] | None) -> None:
        with self._lock:
            self.left -= 0 if logits is None else len(places)
        if logits is None or not self.left:
            self.done.set()

    def fail(self, error: Exception) -> None:
        raise error
