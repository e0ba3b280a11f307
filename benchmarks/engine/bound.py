"""PURE. The least work that scoring a list takes, and the time it takes at a machine's peak.

Knows the arithmetic of a BERT encoder; does not know a machine, a runtime or texts.
Invariant: only real tokens count, and only what a score depends on, so that no engine can do with less of it.

A layer multiplies every token by 4 H^2 + 2 H I weights (query, key, value, output; feed-forward in and out), and
attention takes 2 n H multiply-adds for each of a pair's n tokens. Of the last layer only the [CLS] row is read: it
needs keys and values of all tokens (2 H^2), and query, output projection and feed-forward for one token a pair. Weights
count in int8 (or another kind), attention in fp32; embeddings, normalisation, GELU, softmax and the head count nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers, hidden size and feed-forward size of an encoder; the heads' number changes no count."""

    layers: int
    hidden: int
    intermediate: int

    def __str__(self) -> str:
        return f"L{self.layers}-H{self.hidden}"

    @property
    def weights(self) -> int:
        """Weights of all layers' linears, which are as many bytes in int8."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)


@dataclass(frozen=True, slots=True)
class Operations:
    """Multiplications and additions of a list: by weights, and in attention."""

    linear: float
    attention: float

    def seconds(self, peaks: Mapping[str, float], kind: str) -> float:
        """Return the time at peak rates, operations a second by kind, with the linears in `kind`."""
        return self.linear / peaks[kind] + self.attention / peaks["fp32"]


def count(shape: Shape, lengths: Sequence[int], *, cls_only: bool) -> Operations:
    """Count the operations of pairs of so many tokens each.

    Two pairs of 3 and 5 tokens, one layer of 2 and 8: 48 multiply-adds a token, and 2 * 2 * (3^2 + 5^2) in attention;
    of [CLS] alone 8 a token and 40 a pair, and 2 * 2 * (3 + 5).

    >>> count(Shape(1, 2, 8), [3, 5], cls_only=False)
    Operations(linear=768.0, attention=272.0)
    >>> count(Shape(1, 2, 8), [3, 5], cls_only=True)
    Operations(linear=288.0, attention=64.0)
    """
    hidden, tokens, pairs = shape.hidden, sum(lengths), len(lengths)
    layer = 4 * hidden**2 + 2 * hidden * shape.intermediate
    full_layers = shape.layers - cls_only
    linear = full_layers * tokens * layer
    attention = full_layers * 2 * hidden * sum(length**2 for length in lengths)
    if cls_only:
        linear += tokens * 2 * hidden**2 + pairs * (layer - 2 * hidden**2)
        attention += 2 * hidden * tokens
    return Operations(2.0 * linear, 2.0 * attention)
