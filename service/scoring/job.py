"""One ranking while it is computed: its texts, rows and logits, and what came of it.

Knows the model, products and the order of the work; does not know the queue, admission or HTTP.
Invariant: a call ends once, with one place for each product, whatever became of single rows.
"""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bundle import Product
from bundle.rows import NO_ROWS, Rows
from bundle.text import Packed
from service.domain.ranking import Cause, Causes, Ranking, Uses, rank_products
from service.engine.model import LoadedModel

Result = TypeVar("Result")
Encodable = Product | Packed
"""What is read of a product: its texts, or what was made of them ahead."""

_UNTIL_KNOWN: Final = int(
    Cause.DEADLINE
)  # as a number: looking a member up takes as long as filling an array
EncodableGroups = list[tuple[str, Sequence[Encodable]]]


class RankingJob:
    """One ranking while it is computed; `_lock` guards everything that more than one thread writes."""

    def __init__(
        self, model: LoadedModel, groups: EncodableGroups, future: asyncio.Future[Ranking], *, measured: bool
    ) -> None:
        self._model = model
        self._groups = groups
        self._future = future
        self._measured = measured
        products = sum(len(products) for _, products in groups)
        self._submitted_s = time.monotonic()
        self._lock = threading.Lock()
        self._is_over = False
        self._logits = np.empty(products, np.float32)
        self._logits.fill(math.nan)
        self._causes: Causes = np.empty(products, np.int8)
        self._causes.fill(_UNTIL_KNOWN)
        self._admitted = self._missing = products
        self._rows = NO_ROWS
        self._times = _Times()
        self._uses: Uses = ()

    @property
    def age_s(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self._submitted_s

    def exclude(self, admitted: int, cause: Cause) -> None:
        """Have only the first `admitted` products computed; the others get a cause."""
        self._causes[admitted:] = cause
        self._admitted = self._missing = admitted

    def tokenize(self) -> Sequence[int] | None:
        """Turn the texts into rows and return their lengths; count first how much is read, if asked for."""
        encoder, times = self._model.encoder, self._times
        began_s = time.monotonic()
        if self._measured:
            self._uses = [encoder.measure(query, _texts(products)) for query, products in self._groups]
            times.measure_s = time.monotonic() - began_s
        if self._future.done():
            return None
        parts: list[Rows] = []
        left = self._admitted
        for query, products in self._groups:
            parts.append(encoder.encode(query, products[:left]))
            left -= len(parts[-1])
        times.queue_s = began_s - self._submitted_s
        rows = parts[0] if len(parts) == 1 else Rows.joined(parts)
        lengths = self._model.padded_lengths(rows.lengths)
        with self._lock:
            self._rows = rows
            times.tokenized_s = time.monotonic()
            times.tokenize_s = times.tokenized_s - began_s - times.measure_s
        if not lengths:
            self.end()
        return lengths

    def rows(self, positions: Sequence[int]) -> Rows:
        """Return rows that are about to be computed."""
        with self._lock:
            self._times.begin()
        return self._rows.take(positions)

    def deliver(self, positions: Sequence[int], logits: NDArray[np.float32] | None) -> None:
        """Take the logits of some rows, or None if the engine failed; the last delivery ends the call."""
        with self._lock:
            if self._is_over:
                return
            chosen = list(positions)
            if logits is not None:
                self._logits[chosen] = logits
            self._causes[chosen] = Cause.SCORED if logits is not None else Cause.ENGINE
            self._missing -= len(chosen)
            complete = not self._missing
        if complete:
            self.end()

    def fail(self, error: Exception) -> None:
        """Hand over an error that ends the call."""
        settle_on_loop(self._future, lambda: self._future.set_exception(error))

    def end(self) -> None:
        """Hand over what there is; called by the last delivery, or by the event loop at the deadline."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            infer_s = self._times.infer_s
        try:
            ranking = self._ranking(infer_s)
        except Exception as error:
            self.fail(error)
            raise
        settle_on_loop(self._future, lambda: self._future.set_result(ranking))

    def _ranking(self, infer_s: float) -> Ranking:
        model, rows, times = self._model, self._rows, self._times
        products, unscored = rank_products(self._logits, self._causes, model.bundle.manifest)
        tokens = sum(rows.lengths)
        return Ranking(
            products=products,
            logits=self._logits,
            causes=self._causes,
            unscored=unscored,
            admitted=self._admitted,
            rows=len(rows),
            tokens=tokens,
            padding_tokens=0 if model.is_native else sum(model.padded_lengths(rows.lengths)) - tokens,
            truncated=sum(rows.truncated),
            lengths=rows.lengths,
            cut=rows.truncated,
            unknown_tokens=model.encoder.count_unknown(rows),
            tokenize_s=times.tokenize_s,
            queue_s=times.queue_s,
            infer_s=infer_s,
            measure_s=times.measure_s,
            uses=self._uses,
        )


def _texts(items: Sequence[Encodable]) -> list[Product]:
    """Return products that are measured, which come with their texts."""
    products = [item for item in items if isinstance(item, Product)]
    assert len(products) == len(items), "a packed product cannot be measured"
    return products


@dataclass(slots=True)
class _Times:
    """When the parts of a call began and how long they took, in seconds."""

    measure_s: float = 0.0
    tokenize_s: float = 0.0
    tokenized_s: float = 0.0
    queue_s: float = 0.0
    infer_from_s: float = math.inf

    def begin(self) -> None:
        """Note that a run is about to be computed; the wait before the first one was the queue's."""
        if math.isinf(self.infer_from_s):
            self.infer_from_s = time.monotonic()
            self.queue_s += self.infer_from_s - self.tokenized_s

    @property
    def infer_s(self) -> float:
        """Seconds since the first run was begun."""
        return 0.0 if math.isinf(self.infer_from_s) else time.monotonic() - self.infer_from_s


def settle_on_loop(future: asyncio.Future[Result], settle: Callable[[], None]) -> None:
    """Settle a future on its event loop, unless it is settled already."""
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(lambda: None if future.done() else settle())
