"""PURE: rows of token ids, one by one and as a block, and the tensors that a graph takes.

Knows ids, lengths and the template's padding; does not know texts or tokenizers.
Invariant: a row is the same wherever it lies in a block, and a tensor holds nothing else than its rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Self, overload

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import PairTemplate
from bundle.words import TOKEN_BYTES, unpack_ids

LENGTH_STEP: Final = 8


@dataclass(slots=True)  # not frozen, which makes making one three times as slow
class Row:
    """Token ids of one pair, as `pack_ids` writes them; the first `query_tokens` of them have type 0.

    `truncated` says that a text of the pair lost characters or tokens.
    """

    packed: bytes
    query_tokens: int
    truncated: bool

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids as numbers."""
        return unpack_ids(self.packed)

    def __len__(self) -> int:
        return len(self.packed) // TOKEN_BYTES


@dataclass(slots=True)
class Rows(Sequence[Row]):
    """Rows one after the other, since hundreds of small objects take longer to make than to compute with.

    `packed` are the ids of all; `lengths`, `query_tokens` and `truncated`, a byte that is 1 or 0, go row by row.
    """

    packed: bytes
    lengths: list[int]
    query_tokens: list[int]
    truncated: bytes

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """Return rows that were made one by one."""
        told = [(row.packed, len(row), row.query_tokens, row.truncated) for row in rows]
        packed, lengths, query_tokens, truncated = zip(*told, strict=True) if told else ((), (), (), ())
        return cls(b"".join(packed), list(lengths), list(query_tokens), bytes(truncated))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of several as one."""
        return cls(
            b"".join([part.packed for part in parts]),
            [length for part in parts for length in part.lengths],
            [tokens for part in parts for tokens in part.query_tokens],
            b"".join([part.truncated for part in parts]),
        )

    def take(self, places: Sequence[int]) -> Self:
        """Return the rows at some places, in their order."""
        packed, starts = self.packed, self._starts()
        return type(self)(
            b"".join([packed[starts[place] : starts[place + 1]] for place in places]),
            [self.lengths[place] for place in places],
            [self.query_tokens[place] for place in places],
            bytes([self.truncated[place] for place in places]),
        )

    def _starts(self) -> list[int]:
        """Return where each row begins among the bytes, and the end."""
        return [TOKEN_BYTES * tokens for tokens in accumulate(self.lengths, initial=0)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Row]:
        spans = pairwise(self._starts())
        for (start, end), tokens, cut in zip(spans, self.query_tokens, self.truncated, strict=True):
            yield Row(self.packed[start:end], tokens, bool(cut))

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> Self: ...
    def __getitem__(self, key: int | slice) -> Row | Self:
        """Return one row, or some of them."""
        places = range(len(self))[key]
        return self.take(places) if isinstance(places, range) else next(iter(self.take([places])))


NO_ROWS: Final = Rows(b"", [], [], b"")


def padded_length(tokens: int, max_length: int) -> int:
    """Return the length at which a row of so many tokens is computed: the next multiple of 8.

    It depends on the row alone, so a pair is always computed at one shape, whatever it is batched with.

    >>> [padded_length(n, 30) for n in (1, 8, 9, 29)]
    [8, 8, 16, 30]
    """
    return min(max_length, -(-tokens // LENGTH_STEP) * LENGTH_STEP)


def assemble(
    rows: Sequence[Row], template: PairTemplate, length: int | None = None
) -> dict[str, NDArray[np.int64]]:
    """Return input_ids, attention_mask and token_type_ids, each int64 [rows, length].

    Rows are padded on the right to `length`, by default the longest row.
    ValueError if a row is longer, or if there are no rows.
    """
    if not rows:
        raise ValueError("no rows to assemble")
    lengths = np.array([len(row) for row in rows])
    width = int(lengths.max()) if length is None else length
    if lengths.max() > width:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit a length of {width}")
    columns = np.arange(width)
    filled = columns < lengths[:, None]
    input_ids = np.full(filled.shape, template.pad_id, dtype=np.int64)
    input_ids[filled] = np.frombuffer(b"".join([row.packed for row in rows]), np.int32)
    types = np.zeros(filled.shape, dtype=np.int64)
    if template.type_ids:
        types[filled & (columns >= np.array([row.query_tokens for row in rows])[:, None])] = 1
    return {"input_ids": input_ids, "attention_mask": filled.astype(np.int64), "token_type_ids": types}
