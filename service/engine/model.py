"""A bundle that is ready to compute: its encoder, a session for each worker, and what a run of it costs.

Knows rows and logits; does not know requests, queues or HTTP.
Invariant: a worker uses the session of its number, which may be that of others too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle import Bundle, PairEncoder
from bundle.rows import Rows, assemble, padded_length
from bundle.verify import Session
from service.engine.cost import CostModel
from service.engine.shapes import ShapeSet
from service.native.session import NativeSession
from service.native.words import NativePairEncoder

NATIVE_STEP: Final = 24
"""Tokens. The native engine pads nothing: coarse lengths make few runs, each of them costs what another thread wakes for."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedModel:
    """One bundle in one precision on one device; `shapes` are those of a GPU, `costs` are learnt while it serves.

    The native engine takes rows of any lengths together and pads none. With `words`, rows are made by the native
    library's table of words.
    """

    bundle: Bundle
    precision: str
    device: str
    sessions: Sequence[Session]
    shapes: ShapeSet | None = None
    words: bool = False
    costs: CostModel = field(default_factory=CostModel)
    encoder: PairEncoder = field(init=False)
    is_native: bool = field(init=False)
    _lengths: tuple[int, ...] = field(init=False)  # by tokens

    def __post_init__(self) -> None:
        manifest = self.bundle.manifest
        is_native = bool(self.sessions) and isinstance(self.sessions[0], NativeSession)
        object.__setattr__(self, "is_native", is_native)
        encoder = (NativePairEncoder if self.words else PairEncoder)(
            self.bundle.files[manifest.tokenizer], manifest.text
        )
        object.__setattr__(self, "encoder", encoder)
        object.__setattr__(self, "_lengths", tuple(map(self._length, range(self.longest + 1))))

    @property
    def id(self) -> str:
        """name@version, as every answer gives it."""
        return f"{self.bundle.manifest.name}@{self.bundle.manifest.version}"

    @property
    def key(self) -> bytes:
        """What a logit depends on beside the texts."""
        return f"{self.bundle.id}/{self.precision}/{self.device}/{self.engine}".encode()

    @property
    def engine(self) -> str:
        """What computes it."""
        return "native" if self.is_native else "onnxruntime"

    @property
    def longest(self) -> int:
        """Most tokens of a pair."""
        return self.bundle.manifest.text.max_length

    def padded_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Return the lengths at which rows of so many tokens are computed, or counted with the native engine."""
        lengths = self._lengths
        return [lengths[count] for count in tokens]

    def _length(self, tokens: int) -> int:
        if self.shapes is not None:
            return self.shapes.length_of(tokens)
        if self.is_native:
            return min(-(-tokens // NATIVE_STEP) * NATIVE_STEP, self.longest)
        return padded_length(tokens, self.longest)

    def compute(self, rows: Rows, length: int, worker: int) -> NDArray[np.float32]:
        """Return the logits, float32 [n], of rows of at most one length; ValueError if the graph gives others."""
        template = self.bundle.manifest.text.template
        session = self.sessions[worker]
        if isinstance(session, NativeSession):
            logits = session.run_rows(rows, type_ids=template.type_ids)
        else:
            logits = session.run(assemble(rows, template, length))
        if logits.shape != (len(rows),):
            raise ValueError(f"expected {len(rows)} logits, got shape {logits.shape}")
        return logits
