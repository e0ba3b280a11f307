"""What the score cache and the one that is shared with others have done, read at each scrape.

Knows their counts and the names that these have as metrics; does not know pairs, keys or requests.
Invariant: every series exists from the start, at 0, whether or not there is a cache.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.cache.memory import ScoreCache
from service.cache.shared import SharedCounts


class CacheMeter(Collector):
    """Counts of nothing, until it is told what to `watch`."""

    def __init__(self) -> None:
        self._cache = ScoreCache(max_bytes=0, ttl_s=1.0)
        self._shared = SharedCounts()

    def watch(self, cache: ScoreCache, shared: SharedCounts | None = None) -> None:
        """Read these two from now on, the latter if there is one."""
        self._cache = cache
        self._shared = shared or self._shared

    def collect(self) -> Iterator[Metric]:
        """Yield what both have counted so far."""
        yield from _local(self._cache)
        yield from _remote(self._shared)


def _local(cache: ScoreCache) -> Iterator[Metric]:
    counts, table = cache.counts, cache.table
    yield _counter(
        "cache_lookups",
        "Pairs looked up in the score cache; joined ones waited for another request that computed them.",
        "result",
        {"hit": counts.hits, "miss": counts.misses, "joined": counts.shared},
    )
    yield CounterMetricFamily(
        "shelfrank_cache_evictions", "Pairs that made room for others.", value=table.evictions
    )
    yield GaugeMetricFamily(
        "shelfrank_cache_bytes", "Bytes that the score cache takes.", value=table.used_bytes
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
