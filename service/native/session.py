"""A graph computed by encoder.c instead of ONNX Runtime.

Knows the library and its workspaces; does not know bundles on disk, requests or scores.
Invariant: a row's logit is the same bit for bit alone and in any batch, and padding is never computed.
"""

import ctypes
import threading
from array import array
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle.layout import EncoderLayout
from bundle.manifest import TensorSpec
from bundle.rows import Rows
from bundle.verify import INPUT_NAMES, OUTPUT_NAME
from bundle.words import TOKEN_BYTES
from service.errors import EngineError
from service.native.build import ENCODER, find
from service.native.structs import check_structs
from service.native.weights import STRUCTS, Encoder, Weights, why_unsupported

_INPUTS: Final = tuple(
    TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in INPUT_NAMES
)
_OUTPUTS: Final = (TensorSpec(name=OUTPUT_NAME, dtype="float32", shape=("batch",)),)
_MAX_ROWS: Final = 64  # that the last layer's first tokens are kept of; more are computed in several turns


@cache
def _library() -> ctypes.CDLL:
    """Load the library; OSError if it is not built, not for this processor, or of other structs."""
    library = ctypes.CDLL(str(find(ENCODER)[0]))
    check_structs(library.shelfrank_encoder_sizes, STRUCTS)
    encoder, pointer, number = ctypes.POINTER(Encoder), ctypes.c_void_p, ctypes.c_int32
    library.shelfrank_supported.restype = ctypes.c_int
    library.shelfrank_has_tiles.restype = ctypes.c_int
    library.shelfrank_open.argtypes = (encoder, number)
    library.shelfrank_open.restype = pointer
    library.shelfrank_close.argtypes = (pointer,)
    library.shelfrank_close.restype = None
    library.shelfrank_logits.argtypes = (encoder, pointer, number, *[ctypes.c_char_p] * 3, pointer)
    library.shelfrank_logits.restype = ctypes.c_int
    return library


def why_not(layout: EncoderLayout | None) -> str:
    """Say why this machine cannot compute a graph natively; empty if it can."""
    if layout is None:
        return "the bundle does not say where the graph's weights are"
    return why_not_here() or why_unsupported(layout)


def why_not_here() -> str:
    """Say why this machine cannot use the library; empty if it can."""
    if reason := find(ENCODER)[1]:
        return f"the engine is not built: {reason}"
    try:
        library = _library()
    except OSError as error:
        return f"the engine does not load: {error}"
    if not library.shelfrank_supported():
        return "this processor has no AVX-512 VNNI"
    return ""


def why_onnxruntime_is_faster(layout: EncoderLayout | None) -> str:
    """Say why ONNX Runtime is to compute a graph where the choice is free; empty if this engine is faster."""
    if reason := why_not(layout):
        return reason
    return "this processor has AMX, which ONNX Runtime uses" if _library().shelfrank_has_tiles() else ""


class NativeSession:
    """One encoder for any number of threads, each of which writes on a workspace of its own."""

    def __init__(self, layout: EncoderLayout | None, file: bytes) -> None:
        """Lay out the weights of a graph's file; EngineError if it cannot be computed here."""
        if reason := why_not(layout):
            raise EngineError(f"engine is native, but {reason}")
        assert layout is not None, "why_not has looked"
        self._library = _library()
        try:
            self._weights = Weights(layout, file)
        except ValueError as error:
            raise EngineError(f"the graph's file does not hold what its layout says: {error}") from error
        self._encoder = ctypes.byref(self._weights.struct)
        self._of_thread = threading.local()
        self.inputs = _INPUTS
        self.outputs = _OUTPUTS

    def run(self, feeds: Mapping[str, NDArray[np.int64]], /) -> NDArray[np.float32]:
        """Return the logits, float32 [n], of feeds int64 [n, length], whose padding is at the end."""
        ids, mask, types = (feeds[name] for name in INPUT_NAMES)
        lengths = mask.sum(axis=1)
        of_type_0 = lengths - (types * mask).sum(axis=1)
        tokens = ids[mask.astype(bool)]
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self._weights.struct.vocabulary):
            raise EngineError("a token id has no row in the vocabulary")
        return self._logits(tokens.astype(np.int32).tobytes(), lengths.tolist(), of_type_0.tolist())

    def run_rows(self, rows: Rows, *, type_ids: bool) -> NDArray[np.float32]:
        """Return the logits, float32 [n], of rows of any lengths; without `type_ids` all tokens are of type 0."""
        return self._logits(rows.packed, rows.lengths, rows.query_tokens if type_ids else rows.lengths)

    def _logits(self, ids: bytes, lengths: list[int], of_type_0: list[int]) -> NDArray[np.float32]:
        if len(ids) != TOKEN_BYTES * sum(lengths) or len(of_type_0) != len(lengths):
            raise ValueError(f"expected {sum(lengths)} ids in {len(lengths)} rows, got {len(ids)} bytes")
        logits = np.empty(len(lengths), np.float32)
        workspace = self._workspace()
        status = self._library.shelfrank_logits(
            self._encoder,
            workspace.address,
            len(lengths),
            ids,
            array("i", lengths).tobytes(),
            array("i", of_type_0).tobytes(),
            address_of(logits, np.float32, len(lengths)),
        )
        if status:
            raise EngineError(f"a row is empty, over {self._weights.longest} tokens or of unknown ids")
        return logits

    def _workspace(self) -> "_Workspace":
        """What this thread writes on."""
        found: _Workspace | None = getattr(self._of_thread, "workspace", None)
        if found is None:
            found = self._of_thread.workspace = _Workspace(self._library, self._weights)
        return found


def address_of(values: NDArray[Any], kind: type[np.generic], size: int) -> int:
    """Return where an array lies; ValueError if it is not `size` values of that kind, one after the other."""
    if values.dtype != kind or values.size != size or not values.flags.c_contiguous:
        raise ValueError(f"expected {size} contiguous {kind.__name__}, got {values.shape} {values.dtype}")
    address: int = values.__array_interface__["data"][0]  # `ndarray.ctypes` takes four times as long
    return address


class _Workspace:
    """Memory of one thread, given back with it."""

    def __init__(self, library: ctypes.CDLL, weights: Weights) -> None:
        self._close = library.shelfrank_close
        self.address = library.shelfrank_open(ctypes.byref(weights.struct), _MAX_ROWS)
        if not self.address:
            raise MemoryError("no memory for the native engine's workspace")

    def __del__(self) -> None:
        if getattr(self, "address", None):
            self._close(self.address)
