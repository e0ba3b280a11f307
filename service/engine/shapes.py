"""PURE. The few fixed shapes in which a GPU computes, and which of them a run takes.

Knows rows, lengths and token counts; does not know texts, devices or the runtime.
Invariant: any rows of up to the longest length fit into shapes of the set, and a row's length depends on the row alone.

A captured graph of GPU work is bound to one shape, so the set has to be small; what a run is short of its shape is
computed for nothing, so it must not be too small. Lengths and row counts grow by a third to a half from one to the
next, which leaves at most that share of a run empty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle.verify import INPUT_NAMES

SHORTEST: Final = 32
FEWEST_ROWS: Final = 8
"""A GPU is not faster with fewer rows or tokens than these, by what is known of them: nobody has measured it here."""


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """So many rows of so many tokens each."""

    length: int
    rows: int

    @property
    def tokens(self) -> int:
        """Tokens, padding included."""
        return self.length * self.rows


@dataclass(frozen=True, slots=True)
class ShapeSet:
    """Row lengths in ascending order, and how many tokens a run may have; the rows follow from both.

    A run is a little larger if not even `FEWEST_ROWS` of the longest rows fit.
    """

    lengths: tuple[int, ...]
    run_tokens: int

    def length_of(self, tokens: int) -> int:
        """Return the length at which a row of so many tokens is computed; ValueError if it is too long.

        >>> [make_shapes(200, 16_384).length_of(tokens) for tokens in (3, 32, 33, 97, 200)]
        [32, 32, 48, 128, 200]
        """
        for length in self.lengths:
            if tokens <= length:
                return length
        raise ValueError(f"expected a row of at most {self.lengths[-1]} tokens, got {tokens}")

    def most_rows(self, length: int) -> int:
        """Return the largest number of rows of one run."""
        return max(count for count in _steps(FEWEST_ROWS, max(FEWEST_ROWS, self.run_tokens // length)))

    def shape_of(self, rows: int, length: int) -> Shape:
        """Return the smallest shape for rows of a length of the set; ValueError if there are too many of them.

        >>> make_shapes(128, 16_384).shape_of(50, 48)
        Shape(length=48, rows=64)
        """
        most = self.most_rows(length)
        if not 0 < rows <= most:
            raise ValueError(f"expected 1 to {most} rows of {length} tokens, got {rows}")
        return Shape(length, next(count for count in _steps(FEWEST_ROWS, most) if rows <= count))

    def parts(self, rows: int, length: int) -> Iterator[slice]:
        """Cut rows of a length into runs, as few as possible.

        >>> list(make_shapes(128, 1_024).parts(20, 128))
        [slice(0, 8, None), slice(8, 16, None), slice(16, 20, None)]
        """
        most = self.most_rows(length)
        return (slice(start, min(start + most, rows)) for start in range(0, rows, most))

    def all(self) -> list[Shape]:
        """Return every shape, the largest first: what it needs of memory does for the others."""
        shapes = [
            Shape(length, rows)
            for length in self.lengths
            for rows in _steps(FEWEST_ROWS, self.most_rows(length))
        ]
        return sorted(shapes, key=lambda shape: (shape.tokens, shape), reverse=True)


def make_shapes(max_length: int, run_tokens: int) -> ShapeSet:
    """Return the shapes for pairs of up to `max_length` tokens in runs of up to `run_tokens`.

    >>> make_shapes(200, 16_384).lengths
    (32, 48, 64, 96, 128, 192, 200)
    """
    lengths = [length for length in _steps(SHORTEST, max_length) if length < max_length]
    return ShapeSet((*lengths, max_length), run_tokens)


def pad(feeds: Mapping[str, NDArray[np.int64]], shape: Shape, pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Return feeds int64 [n, length] as [shape.rows, shape.length], padded on the right and below.

    A row that was added keeps its first token in sight: attention over nothing at all is 0 / 0 in some graphs.
    """
    padded = {}
    for name, filling in zip(INPUT_NAMES, (pad_id, 0, 0), strict=True):
        values = feeds[name]
        rows, length = values.shape
        padded[name] = np.full((shape.rows, shape.length), filling, dtype=np.int64)
        padded[name][:rows, :length] = values
        if name == "attention_mask":
            padded[name][rows:, 0] = 1
    return padded


def blank(shape: Shape) -> dict[str, NDArray[np.int64]]:
    """Return feeds of a shape in which every token is in sight.

    >>> blank(Shape(length=3, rows=1))["attention_mask"]
    array([[1, 1, 1]])
    """
    ones = np.ones((shape.rows, shape.length), dtype=np.int64)
    return {"input_ids": ones, "attention_mask": ones, "token_type_ids": np.zeros_like(ones)}


def _steps(first: int, most: int) -> Iterator[int]:
    """Yield `first`, then by turns a half and a third more, up to `most`.

    >>> list(_steps(8, 100))
    [8, 12, 16, 24, 32, 48, 64, 96]
    """
    step = first
    while step <= most:
        yield step
        if step + step // 2 <= most:
            yield step + step // 2
        step *= 2
