"""Products that were looked up lately, in memory, so that asking for them again waits for no disk.

Knows what was found and in which state of the catalogue; does not know a database.
Invariant: what is returned is what the catalogue would return, in the state that is asked for.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Final

from bundle.text import Packed
from service.catalogue.record import ResolvedProduct

MAX_PRODUCTS: Final = 16_384  # under one text key, about 8 MB; all are forgotten when there are more

Id = str | int


class RecentLookups:
    """What was found under each text key in the latest state of a catalogue; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of those who write
        nothing: dict[str, dict[Id, ResolvedProduct | None]] = {}
        self._latest = (
            -1,
            nothing,
        )  # together, or a reader could take what was found in one state for another's

    def get(self, state: int, text_key: str, ids: Iterable[Id]) -> list[ResolvedProduct | None] | None:
        """Return what was found of each id in that state; None if any was not asked for in it."""
        latest, found = self._latest
        known = found.get(text_key)
        if state != latest or known is None:
            return None
        try:
            return [known[identifier] for identifier in ids]
        except KeyError:
            return None

    def keep(
        self, state: int, text_key: str, ids: Sequence[Id], found: Sequence[ResolvedProduct | None]
    ) -> None:
        """Remember what was found in a state, and nothing of any earlier one; texts are too large to be kept."""
        with self._lock:
            if state < self._latest[0]:
                return
            if state > self._latest[0]:
                self._latest = (state, {})
            known = self._latest[1].setdefault(text_key, {})
            if len(known) + len(ids) > MAX_PRODUCTS:
                known.clear()
            known.update(
                (identifier, item)
                for identifier, item in zip(ids, found, strict=True)
                if item is None or isinstance(item.product, Packed)
            )
