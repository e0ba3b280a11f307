"""Ranks products for a query: tokenizes, computes by bucket on the workers, and puts them in order.

Knows the bundle and the order of work; does not know HTTP.
Invariant: every call ends, with one place for each product, whatever the engine does to single rows.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bundle import Bundle, PairEncoder, Product
from bundle.text import ProductUse, Row, TextUse, assemble, padded_length
from bundle.verify import Session
from service.batcher import Bucket, plan_buckets
from service.errors import Refused
from service.ranking import ALL_SCORED, Place, Unscored, rank_places
from service.worker import WorkerPool

Result = TypeVar("Result")
Groups = Sequence[tuple[str, Sequence[Product]]]
Uses = Sequence[tuple[TextUse, Sequence[ProductUse]]]
_FIRST: Final = (-1, 0)  # offloaded work is short and somebody's whole request waits for it


@dataclass(frozen=True, slots=True)
class Ranking:
    """All products of a call, best first, and what the call cost.

    `logits` are in the order of the request, float32 [n], and not finite where a product has no score.
    `uses` say for each query and its products how much of their texts was read, if that was asked for.
    """

    places: tuple[Place, ...] = ()
    logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), compare=False)
    unscored: Unscored = ALL_SCORED
    tokens: int = 0
    padding_tokens: int = 0
    truncated: int = 0
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    measure_s: float = 0.0
    uses: Uses = ()


class Scorer:
    """Ranks on worker threads; its methods are called on the event loop and do not block it.

    `precision` is that of the graph which the workers run.
    """

    def __init__(self, bundle: Bundle, pool: WorkerPool, precision: str) -> None:
        self.bundle = bundle
        self.pool = pool
        self.precision = precision
        self.encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
        self._numbers = itertools.count()

    def rank(self, query: str, products: Sequence[Product]) -> asyncio.Future[Ranking]:
        """Rank `products`; cancelling the future drops what has not been started."""
        return self.rank_groups([(query, products)])

    def rank_groups(self, groups: Groups, *, measured: bool = False) -> asyncio.Future[Ranking]:
        """Rank the products of several queries as one list; a place's index counts through all groups.

        A ranking that is to be `measured` also says how much of each text was read.
        """
        future: asyncio.Future[Ranking] = asyncio.get_running_loop().create_future()
        if measured or any(products for _, products in groups):
            self.pool.put([_Tokenize(_Call(self, next(self._numbers), future), groups, measured=measured)])
        else:
            future.set_result(Ranking())
        return future

    def offload(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run a function on a worker, before any ranking that waits."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.pool.put([_Offloaded(function, future)])
        return future


class _Call:
    """What the jobs of one ranking share; `_lock` guards everything that more than one job writes."""

    def __init__(self, scorer: Scorer, number: int, future: asyncio.Future[Ranking]) -> None:
        self.scorer = scorer
        self.number = number
        self.future = future
        self.submitted_s = time.monotonic()
        self._lock = threading.Lock()
        self._failed: set[int] = set()
        self._infer_from_s = float("inf")
        self.uses: Uses = ()
        self.measure_s = 0.0

    def measure(self, groups: Groups) -> None:
        """Note, before anything is tokenized for the engine, how much of each text is read."""
        began_s = time.monotonic()
        self.uses = [self.scorer.encoder.measure(query, products) for query, products in groups]
        self.measure_s = time.monotonic() - began_s

    def prepare(self, rows: list[Row], buckets: list[Bucket], *, tokenize_from_s: float) -> None:
        """Take over what tokenizing gave."""
        self.rows = rows
        self.tokens = sum(map(len, rows))
        self.padding_tokens = sum(bucket.tokens for bucket in buckets) - self.tokens
        self._logits = np.full(len(rows), np.nan, dtype=np.float32)
        self._missing = len(rows)
        self._tokenize_from_s = tokenize_from_s
        self._tokenized_s = time.monotonic()

    def begin(self) -> None:
        """Note that a bucket is about to be computed."""
        with self._lock:
            self._infer_from_s = min(self._infer_from_s, time.monotonic())

    def deliver(
        self, rows: Sequence[int], logits: np.ndarray[tuple[int], np.dtype[np.float32]] | None
    ) -> None:
        """Take the logits of some rows, or None if the engine failed; the last delivery ends the call."""
        with self._lock:
            if logits is None:
                self._failed.update(rows)
            else:
                self._logits[list(rows)] = logits
            self._missing -= len(rows)
            complete = self._missing == 0
        if complete:
            _hand_over(self.future, self._ranking())

    def _ranking(self) -> Ranking:
        places, unscored = rank_places(self._logits, self._failed, self.scorer.bundle.manifest)
        waited_s = self._tokenize_from_s - self.submitted_s + self._infer_from_s - self._tokenized_s
        waited_s -= self.measure_s
        return Ranking(
            places=places,
            logits=self._logits,
            unscored=unscored,
            tokens=self.tokens,
            padding_tokens=self.padding_tokens,
            truncated=sum(row.truncated for row in self.rows),
            tokenize_s=self._tokenized_s - self._tokenize_from_s,
            queue_s=waited_s,
            infer_s=time.monotonic() - self._infer_from_s,
            measure_s=self.measure_s,
            uses=self.uses,
        )


class _Tokenize:
    """Turns texts into rows, and rows into buckets for the pool."""

    def __init__(self, call: _Call, groups: Groups, *, measured: bool) -> None:
        self.order = (call.number, 0)
        self._call = call
        self._groups = groups
        self._measured = measured

    def wanted(self) -> bool:
        return not self._call.future.done()

    def run(self, session: Session) -> None:  # noqa: ARG002  a job that needs none
        if self._measured:
            self._call.measure(self._groups)
            if not any(products for _, products in self._groups):
                _hand_over(self._call.future, Ranking(uses=self._call.uses, measure_s=self._call.measure_s))
                return
        began_s = time.monotonic()
        scorer = self._call.scorer
        rows: list[Row] = []
        for query, products in self._groups:
            rows += scorer.encoder.encode(query, products)
        longest = scorer.bundle.manifest.text.max_length
        buckets = plan_buckets([padded_length(len(row), longest) for row in rows], scorer.pool.size)
        self._call.prepare(rows, buckets, tokenize_from_s=began_s)
        scorer.pool.put(_Compute(self._call, bucket, place) for place, bucket in enumerate(buckets, start=1))

    def fail(self, error: Exception) -> None:
        _hand_over_error(self._call.future, error)


class _Compute:
    """Computes one bucket; if the engine fails, tries its rows once more one by one."""

    def __init__(self, call: _Call, bucket: Bucket, place: int, *, is_retry: bool = False) -> None:
        self.order = (call.number, place)
        self._call = call
        self._bucket = bucket
        self._is_retry = is_retry
        self._is_computed = False

    def wanted(self) -> bool:
        return not self._call.future.done()

    def run(self, session: Session) -> None:
        self._call.begin()
        rows = [self._call.rows[row] for row in self._bucket.rows]
        template = self._call.scorer.bundle.manifest.text.template
        logits = session.run(assemble(rows, template, self._bucket.length))
        if logits.shape != (len(rows),):
            raise ValueError(f"expected {len(rows)} logits, got shape {logits.shape}")
        self._is_computed = True
        self._call.deliver(self._bucket.rows, logits)

    def fail(self, error: Exception) -> None:
        if self._is_computed:
            _hand_over_error(self._call.future, error)
        elif self._is_retry:
            self._call.deliver(self._bucket.rows, None)
        else:
            self._call.scorer.pool.put(
                _Compute(self._call, Bucket((row,), self._bucket.length), self.order[1], is_retry=True)
                for row in self._bucket.rows
            )


class _Offloaded(Generic[Result]):
    """A plain function; a refusal is its normal outcome, not an error of the worker."""

    order = _FIRST

    def __init__(self, function: Callable[[], Result], future: asyncio.Future[Result]) -> None:
        self._function = function
        self._future = future

    def wanted(self) -> bool:
        return not self._future.done()

    def run(self, session: Session) -> None:  # noqa: ARG002  a job that needs none
        try:
            _hand_over(self._future, self._function())
        except Refused as refusal:
            _hand_over_error(self._future, refusal)

    def fail(self, error: Exception) -> None:
        _hand_over_error(self._future, error)


def _hand_over(future: asyncio.Future[Result], result: Result) -> None:
    """Give a result to the event loop from a worker."""
    _on_loop(future, lambda: future.set_result(result))


def _hand_over_error(future: asyncio.Future[Result], error: Exception) -> None:
    _on_loop(future, lambda: future.set_exception(error))


def _on_loop(future: asyncio.Future[Result], settle: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(lambda: None if future.done() else settle())
