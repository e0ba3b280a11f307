"""What the score cache and the one that is shared with others have done, read at each scrape.

Knows what caches count and the names that these counts have as metrics; does not know pairs, keys or requests.
Invariant: every series exists from the start, at 0, whether or not there is a cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(slots=True)
class CacheCounts:
    """How many pairs each way was taken by, since the start."""

    hits: int = 0
    misses: int = 0
    shared: int = 0


class Trouble(StrEnum):
    """Why the server was of no use, as a label of a metric."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    GARBAGE = "garbage"
    PAUSED = "paused"
    BUSY = "busy"


@dataclass(slots=True)
class SharedCounts:
    """Pairs by what became of them, and lookups, writes or values by what troubled them, since the start."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    troubles: dict[Trouble, int] = field(default_factory=lambda: dict.fromkeys(Trouble, 0))


class Table(Protocol):
    """Where a cache keeps what it knows."""

    @property
    def evictions(self) -> int:
        """Pairs that made room for others."""
        ...

    @property
    def used_bytes(self) -> int:
        """Bytes that are taken."""
        ...


class Cache(Protocol):
    """A cache in memory, as far as it is told of."""

    @property
    def counts(self) -> CacheCounts:
        """What it was asked."""
        ...

    @property
    def table(self) -> Table:
        """What it keeps."""
        ...


class CacheMeter(Collector):
    """Counts of nothing, until it is told what to `watch`."""

    def __init__(self) -> None:
        self._cache: Cache | None = None
        self._shared = SharedCounts()

    def watch(self, cache: Cache, shared: SharedCounts | None = None) -> None:
        """Read these two from now on, the latter if there is one."""
        self._cache = cache
        self._shared = shared or self._shared

    def collect(self) -> Iterator[Metric]:
        """Yield what both have counted so far."""
        yield from _local(self._cache)
        yield from _remote(self._shared)


def _local(cache: Cache | None) -> Iterator[Metric]:
    counts = CacheCounts() if cache is None else cache.counts
    yield _counter(
        "cache_lookups",
        "Pairs looked up in the score cache; joined ones waited for another request that computed them.",
        "result",
        {"hit": counts.hits, "miss": counts.misses, "joined": counts.shared},
    )
    yield CounterMetricFamily(
        "shelfrank_cache_evictions",
        "Pairs that made room for others.",
        value=0 if cache is None else cache.table.evictions,
    )
    yield GaugeMetricFamily(
        "shelfrank_cache_bytes",
        "Bytes that the score cache takes.",
        value=0 if cache is None else cache.table.used_bytes,
    )


def _remote(counts: SharedCounts) -> Iterator[Metric]:
    yield _counter(
        "cache_remote_lookups",
        "Pairs looked up in the shared cache.",
        "result",
        {"hit": counts.hits, "miss": counts.misses},
    )
    yield _counter(
        "cache_remote_writes",
        "Pairs stored in the shared cache, or dropped because it was slow or away.",
        "result",
        {"stored": counts.stored, "dropped": counts.dropped},
    )
    yield _counter(
        "cache_remote_troubles",
        "Lookups, writes and values of the shared cache that were of no use, by why.",
        "trouble",
        {trouble.value: count for trouble, count in counts.troubles.items()},
    )


def _counter(name: str, sentence: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"shelfrank_{name}", sentence, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
