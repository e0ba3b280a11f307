"""Where the weights of an encoder lie in a graph's file, and what is computed with them.

Knows names, shapes and offsets; does not know what the file is beside them.
Invariant: a layout that parses names every tensor of its encoder, once, with the shape that follows from the others.
"""

from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

LINEARS: Final = ("query", "key", "value", "project", "expand", "contract")
NORMS: Final = ("attention_norm", "output_norm")
Positive = Annotated[int, Field(gt=0)]


class TensorLocation(BaseModel):
    """One tensor: raw little-endian values in row-major order, `offset` bytes from the start of the file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    offset: Annotated[int, Field(ge=0, lt=1 << 40)]
    dtype: Literal["float32", "int8", "uint8"]
    shape: tuple[Annotated[int, Field(ge=0)], ...]

    def read(self, file: bytes) -> NDArray[np.generic]:
        """Return the tensor as a read-only view of the file; ValueError if it ends before."""
        count = int(np.prod(self.shape, dtype=np.int64))
        return np.frombuffer(file, self.dtype, count, self.offset).reshape(self.shape)


class EncoderLayout(BaseModel):
    """An encoder of the BERT family in static int8, the last layer for the first token alone.

    Tensors, with h the hidden size, i the inner one: `embeddings.words` int8 [vocabulary, h] times
    `embeddings.word_scales` [vocabulary, 1], plus `embeddings.positions` [longest, h] and `embeddings.types` [2, h]
    if there are such, normalised; for each layer n `layers.n.NAME.weight` int8 [in, out] and its `scale` and `bias`
    [out], and of what it reads `step` and `zero` [] and the factors `inverse` [in], if there are such; the scale of
    attention is in the query's. All norms have the same epsilon.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    layers: Positive
    heads: Positive
    activation: Literal["gelu", "relu"]
    pooled: Literal["tanh", "relu"]
    epsilon: Annotated[float, Field(gt=0)]
    tensors: dict[str, TensorLocation]

    @property
    def hidden(self) -> int:
        """Size of a token's row."""
        return self.tensors["embeddings.words"].shape[1]

    @property
    def inner(self) -> int:
        """Size of a row between the two layers of a feed-forward network."""
        return self.tensors["layers.0.expand.weight"].shape[1]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        wanted = _shapes(self)
        for name, place in self.tensors.items():
            if name not in wanted or wanted[name] != (place.dtype, place.shape):
                raise ValueError(f"tensor {name[:80]} is none of this encoder's or has another type or shape")
        absent = wanted.keys() - self.tensors.keys()
        if lacking := sorted(name for name in absent if not name.endswith((".inverse", ".types"))):
            raise ValueError(f"tensor {lacking[0]} is absent")
        return self


def _shapes(layout: EncoderLayout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor that an encoder may have."""
    told = {name: layout.tensors[name].shape for name in _SIZES if name in layout.tensors}
    if told.keys() != set(_SIZES) or any(len(shape) != 2 for shape in told.values()):
        raise ValueError(f"an encoder has the matrices {', '.join(_SIZES)}")
    (vocabulary, hidden), (longest, _), (_, inner) = (told[name] for name in _SIZES)
    if not hidden or hidden % layout.heads:
        raise ValueError("the hidden size is no multiple of the number of heads")
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "embeddings.words": ("int8", (vocabulary, hidden)),
        "embeddings.word_scales": ("float32", (vocabulary, 1)),
        "embeddings.positions": ("float32", (longest, hidden)),
        "embeddings.types": ("float32", (2, hidden)),
        "pooler.weight": ("float32", (hidden, hidden)),
        "pooler.bias": ("float32", (hidden,)),
        "classifier.weight": ("float32", (hidden, 1)),
        "classifier.bias": ("float32", (1,)),
    }
    norms = [f"layers.{layer}.{norm}" for layer in range(layout.layers) for norm in NORMS]
    for norm in ("embeddings.norm", *norms):
        found |= {f"{norm}.weight": ("float32", (hidden,)), f"{norm}.bias": ("float32", (hidden,))}
    for layer in range(layout.layers):
        for name in LINEARS:
            reads = inner if name == "contract" else hidden
            gives = inner if name == "expand" else hidden
            linear = f"layers.{layer}.{name}"
            found |= {
                f"{linear}.weight": ("int8", (reads, gives)),
                f"{linear}.scale": ("float32", (gives,)),
                f"{linear}.bias": ("float32", (gives,)),
                f"{linear}.step": ("float32", ()),
                f"{linear}.zero": ("uint8", ()),
                f"{linear}.inverse": ("float32", (reads,)),
            }
    return found


_SIZES: Final = ("embeddings.words", "embeddings.positions", "layers.0.expand.weight")
