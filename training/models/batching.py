"""Batches of texts of about the same length, so that little padding is computed.

Knows lengths; does not know texts, tensors or models.
Invariant: every place is in one batch, and no batch holds more than `rows`.
"""

from collections.abc import Iterator, Sequence


def batches_by_length(
    lengths: Sequence[int], rows: int, *, longest_first: bool = False
) -> Iterator[list[int]]:
    """Yield the places of texts in order of their length, `rows` at a time; equal ones stay in their order.

    >>> list(batches_by_length([5, 1, 9, 1], 3))
    [[1, 3, 0], [2]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=longest_first)
    yield from _cut(order, rows)


def batches_of_one_length(lengths: Sequence[int], rows: int) -> Iterator[tuple[int, list[int]]]:
    """Yield a length and places of texts that have just it, at most `rows`, by the first place of each length.

    >>> list(batches_of_one_length([5, 1, 5, 5], 2))
    [(5, [0, 2]), (5, [3]), (1, [1])]
    """
    for length, places in places_by_length(lengths).items():
        yield from ((length, chosen) for chosen in _cut(places, rows))


def places_by_length(lengths: Sequence[int]) -> dict[int, list[int]]:
    """Return the places that have each length.

    >>> places_by_length([5, 1, 5])
    {5: [0, 2], 1: [1]}
    """
    found: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        found.setdefault(length, []).append(place)
    return found


def _cut(places: list[int], rows: int) -> Iterator[list[int]]:
    return (places[start : start + rows] for start in range(0, len(places), rows))
