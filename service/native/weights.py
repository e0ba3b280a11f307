"""Lays out an encoder's weights as the native engine reads them.

Knows the bundle's layout and the structs of encoder.c; does not know how they are computed with.
Invariant: every array that a struct points to lives as long as the `Weights` that hold it.
"""

import ctypes
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from bundle.layout import EncoderLayout

PANEL: Final = 64
_HEAD_STEP: Final = 16
_ACTIVATIONS: Final = ("gelu", "relu")
_POOLED: Final = ("tanh", "relu")
_Pointer = ctypes.c_void_p
_Int = ctypes.c_int32
_Float = ctypes.c_float
Floats = NDArray[np.float32]


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("weight", "scale", "bias", "inverse")),
        *(("zero", _Float), ("inputs", _Int), ("outputs", _Int)),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _Pointer), ("bias", _Pointer), ("epsilon", _Float))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Linear) for name in ("inputs", "query", "project", "expand", "contract")),
        *(("attention_norm", _Norm), ("output_norm", _Norm)),
    )


class Encoder(ctypes.Structure):
    """The encoder of encoder.c."""

    _fields_ = (
        *((name, _Int) for name in ("layers", "heads", "hidden", "inner", "longest", "vocabulary")),
        ("activation", _Int),
        *((name, _Pointer) for name in ("words", "word_scales", "positions", "types")),
        *(("embedding_norm", _Norm), ("layer", ctypes.POINTER(_Layer))),
        *((name, _Pointer) for name in ("pooler", "pooler_bias", "classifier")),
        *(("classifier_bias", _Float), ("pooled", _Int)),
    )


STRUCTS: Final = (_Linear, _Norm, _Layer, Encoder)


def why_unsupported(layout: EncoderLayout) -> str:
    """Say why the native engine cannot compute an encoder; empty if it can."""
    if layout.hidden % PANEL or layout.inner % PANEL:
        return f"sizes {layout.hidden} and {layout.inner} are no multiples of {PANEL}"
    if layout.hidden // layout.heads % _HEAD_STEP:
        return f"heads of size {layout.hidden // layout.heads} are no multiples of {_HEAD_STEP}"
    return ""


class Weights:
    """An encoder in memory; `struct` is what encoder.c reads."""

    def __init__(self, layout: EncoderLayout, file: bytes) -> None:
        """Lay out the tensors of a graph's file; ValueError if it is shorter than the layout says."""
        self._kept: list[object] = [file]
        self._tensors = {name: place.read(file) for name, place in layout.tensors.items()}
        vocabulary, hidden = self._tensors["embeddings.words"].shape
        longest = len(self._tensors["embeddings.positions"])
        layers = (_Layer * layout.layers)(
            *(
                self._layer(layout, number, first_only=number == layout.layers - 1)
                for number in range(layout.layers)
            )
        )
        self._kept.append(layers)
        self.longest: Final = longest
        self.struct: Final = Encoder(
            layers=layout.layers,
            heads=layout.heads,
            hidden=hidden,
            inner=layout.inner,
            longest=longest,
            vocabulary=vocabulary,
            activation=_ACTIVATIONS.index(layout.activation),
            words=self._keep(self._tensors["embeddings.words"]),
            word_scales=self._keep(self._tensors["embeddings.word_scales"]),
            positions=self._keep(self._tensors["embeddings.positions"]),
            types=self._keep(self._tensors.get("embeddings.types", np.zeros((2, hidden), np.float32))),
            embedding_norm=self._norm(layout, "embeddings.norm"),
            layer=ctypes.cast(layers, ctypes.POINTER(_Layer)),
            pooler=self._keep(self._tensors["pooler.weight"]),
            pooler_bias=self._keep(self._tensors["pooler.bias"]),
            classifier=self._keep(self._tensors["classifier.weight"]),
            classifier_bias=float(self._floats("classifier.bias")[0]),
            pooled=_POOLED.index(layout.pooled),
        )
        self._tensors.clear()

    def _layer(self, layout: EncoderLayout, number: int, *, first_only: bool) -> _Layer:
        name = f"layers.{number}"
        keys_and_values = (f"{name}.key", f"{name}.value")
        query = (f"{name}.query",)
        return _Layer(
            inputs=self._linear(*keys_and_values if first_only else (*query, *keys_and_values)),
            query=self._linear(*query) if first_only else _Linear(),
            project=self._linear(f"{name}.project"),
            expand=self._linear(f"{name}.expand"),
            contract=self._linear(f"{name}.contract"),
            attention_norm=self._norm(layout, f"{name}.attention_norm"),
            output_norm=self._norm(layout, f"{name}.output_norm"),
        )

    def _linear(self, *names: str) -> _Linear:
        """Linears that read the same, side by side: y = sums * scale + bias, with the zero point in the bias."""
        if len({self._read_by(name) for name in names}) > 1:
            raise ValueError(f"{', '.join(names)} do not read the same")
        step, zero = float(self._floats(f"{names[0]}.step")), float(self._floats(f"{names[0]}.zero"))
        weights = np.concatenate([self._tensors[f"{name}.weight"] for name in names], axis=1)
        scale = np.concatenate([self._floats(f"{name}.scale") for name in names]) * np.float32(step)
        bias = np.concatenate([self._floats(f"{name}.bias") for name in names])
        sums = weights.sum(axis=0, dtype=np.int64)
        stored = f"{names[0]}.inverse"
        inverse = self._floats(stored) if stored in self._tensors else np.ones(len(weights), np.float32)
        return _Linear(
            weight=self._keep(_panels(weights)),
            scale=self._keep(scale),
            bias=self._keep((bias - zero * sums * scale.astype(np.float64)).astype(np.float32)),
            inverse=self._keep(inverse / np.float32(step)),
            zero=zero,
            inputs=weights.shape[0],
            outputs=weights.shape[1],
        )

    def _read_by(self, name: str) -> tuple[bytes, ...]:
        """Return what makes floats the u8 that a linear reads."""
        stored = (self._tensors.get(f"{name}.{part}") for part in ("step", "zero", "inverse"))
        return tuple(b"" if part is None else part.tobytes() for part in stored)

    def _norm(self, layout: EncoderLayout, name: str) -> _Norm:
        return _Norm(
            weight=self._keep(self._tensors[f"{name}.weight"]),
            bias=self._keep(self._tensors[f"{name}.bias"]),
            epsilon=layout.epsilon,
        )

    def _floats(self, name: str) -> Floats:
        return cast("Floats", self._tensors[name].astype(np.float32))

    def _keep(self, values: NDArray[Any]) -> int:
        """Return the address of an array that is kept, in row-major order and aligned."""
        values = np.require(values, requirements=["C", "A"])  # a file's tensors lie at any byte
        self._kept.append(values)
        return values.ctypes.data


def _panels(weight: NDArray[Any]) -> NDArray[Any]:
    """int8 [in, out] -> [out / 64, in / 4, 64, 4], the order in which a tile reads it."""
    inputs, outputs = weight.shape
    apart = weight.reshape(inputs // 4, 4, outputs // PANEL, PANEL)
    return np.ascontiguousarray(apart.transpose(2, 0, 3, 1))
