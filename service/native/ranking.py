"""Ranks and writes results by ranking.c, where numpy's calls cost more than what they compute.

Knows the library; does not know requests.
Invariant: places are those of `rank_places`, and results those of `write_results`, for the same input.
"""

import ctypes
from functools import cache
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from bundle import Manifest
from service.domain.ranking import Places
from service.native.build import library_path
from service.native.session import address_of

Columns = tuple[list[int], list[float], list[str | None], list[int]]
"""Indices, scores and labels of places, and how many products have each cause."""

_Doubles = ctypes.POINTER(ctypes.c_double)


class _Scale(ctypes.Structure):
    _fields_ = (
        ("classes", ctypes.c_int32),
        ("slope", ctypes.c_double),
        *((name, _Doubles) for name in ("thresholds", "gaps", "gains")),
    )


@cache
def _library() -> ctypes.PyDLL:
    """Load the library; it makes Python's objects, so the interpreter is held while it runs."""
    library = ctypes.PyDLL(str(library_path()))
    pointer, objects = ctypes.c_void_p, ctypes.py_object
    library.shelfrank_rank.argtypes = (ctypes.POINTER(_Scale), ctypes.c_int32, pointer, pointer, objects)
    library.shelfrank_rank.restype = objects
    library.shelfrank_results.argtypes = (objects, objects, objects, objects, ctypes.c_ssize_t)
    library.shelfrank_results.restype = objects
    return library


class NativeScale:
    """The calibration and labels of a bundle as ranking.c reads them."""

    def __init__(self, manifest: Manifest) -> None:
        """Load the library, which has to be built."""
        calibration, labels = manifest.calibration, manifest.labels
        gaps: list[float] = (-np.expm1(-np.diff(calibration.thresholds))).tolist()
        arrays = (calibration.thresholds, gaps, [label.gain for label in labels])
        self._scale = _Scale(
            len(labels),
            calibration.slope,
            *((ctypes.c_double * max(1, len(values)))(*values) for values in arrays),
        )
        self._address = ctypes.byref(self._scale)
        self._names = (*(label.name for label in labels), None)
        self._rank: Final = _library().shelfrank_rank

    def rank(self, logits: NDArray[np.float32], causes: NDArray[np.int8]) -> Columns:
        """Return indices, scores and labels of all places, best first, and how many products have each cause."""
        return cast(
            "Columns",
            self._rank(self._address, len(logits), address_of(logits), address_of(causes), self._names),
        )


def write_results(places: Places, ids: list[str | int | None]) -> bytes:
    """Return the results of places as JSON; `ids` are in the order of the request."""
    columns = (places.indices, places.scores, places.labels)
    return cast("bytes", _library().shelfrank_results(*columns, ids, len(places)))
