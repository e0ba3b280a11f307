"""PURE. Adds up what a model was asked and how long each stage of its answers took.

Knows counts and seconds; does not know requests or models.
Invariant: an answer counts once, as whole or as failing, and its stages with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

STAGES: Final = ("queue", "tokenize", "infer", "respond")


@dataclass(slots=True)
class DurationSum:
    """How many there were, and the seconds of all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count some more."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class ModelStats:
    """What one model was asked since it is served; `last_s` is the Unix time of its last answer, 0 without one."""

    documents: int = 0
    last_s: float = 0.0
    whole: DurationSum = field(default_factory=DurationSum)
    failing: DurationSum = field(default_factory=DurationSum)
    cached: DurationSum = field(default_factory=DurationSum)
    stages: Mapping[str, DurationSum] = field(
        default_factory=lambda: {stage: DurationSum() for stage in STAGES}
    )

    def add(
        self, times_s: Mapping[str, float], *, documents: int, cached: int, failed: bool, now_s: float
    ) -> None:
        """Count an answer by the seconds of its stages; `failed` says that a document got no score.

        >>> stats = ModelStats()
        >>> stats.add({"infer": 0.25, "total": 0.5}, documents=3, cached=1, failed=False, now_s=7.0)
        >>> stats.whole, stats.cached.count, stats.stages["infer"].seconds, stats.stages["queue"].count
        (DurationSum(count=1, seconds=0.5), 1, 0.25, 1)
        """
        self.documents += documents
        self.last_s = now_s
        (self.failing if failed else self.whole).add(times_s["total"])
        self.cached.add(0.0, cached)
        for stage, total in self.stages.items():
            total.add(times_s.get(stage, 0.0))
