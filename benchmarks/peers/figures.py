"""Reduces what rerankers did to figures: times of lists, and how far scores lie from the fp32 reference. PURE.

Knows seconds, scores and reference logits; does not know processes, requests or pages.
Invariant: errors are differences of sigmoids, whatever a reranker makes of its logits, and results of parts add up to one.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.peers.lists import Ask, Lists
from benchmarks.peers.roster import Peer
from benchmarks.shared.load import Sample
from benchmarks.shared.percentile import percentile
from bundle.manifest import Manifest
from bundle.score import class_probabilities, relevance

Scores = dict[tuple[int, int], list[float]]
"""Scores of a list by its size and its place among the lists of that size."""

_LOGITS: Final = np.linspace(-30.0, 30.0, 600_001)


@dataclass(frozen=True, slots=True)
class Row:
    """One peer at one size of list. Times are milliseconds; `kind` is library, http or poisson.

    `padding` is tokens computed over real tokens; `rate` is lists a second where they were sent at random times.
    `score_error` is the largest difference from the reference, Spearman's the mean over lists.
    """

    kind: str
    products: int
    peer: str
    lists: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    pairs_per_s: float
    padding: float | None = None
    rate: float | None = None
    errors: int = 0
    score_error: float | None = None
    spearman: float | None = None


@dataclass(slots=True)
class Fact:
    """What is known of a peer beside its times and scores; `idle_cpu` is the share of a core that it takes idle."""

    name: str
    level: str
    environment: str | None
    precision: str
    settings: str
    startup_s: float
    memory_mb: float = 0.0
    idle_cpu: float = 0.0

    @classmethod
    def of(cls, peer: Peer, startup_s: float) -> "Fact":
        """Begin with what is known when it is ready."""
        return cls(peer.name, peer.level, peer.environment, peer.precision, peer.settings, startup_s)


def closed_row(
    peer: Peer,
    size: int,
    took_s: Sequence[float],
    padding: float | None,
    errors: tuple[float | None, float | None],
) -> Row:
    """Return the figures of lists that were asked for one by one; `errors` are those of `score_errors`."""
    return Row(
        kind=peer.level,
        products=size,
        peer=peer.name,
        lists=len(took_s),
        p50_ms=_ms(took_s, 0.5),
        p95_ms=_ms(took_s, 0.95),
        p99_ms=_ms(took_s, 0.99),
        pairs_per_s=size * len(took_s) / sum(took_s) if took_s else 0.0,
        padding=padding,
        score_error=errors[0],
        spearman=errors[1],
    )


def padding_share(rule: str | None, asks: Sequence[Ask], lists: Lists) -> float | None:
    """Return tokens computed over real tokens; None if there is no rule."""
    if rule is None:
        return None
    return sum(lists.computed_tokens(ask, rule) for ask in asks) / sum(sum(ask.tokens) for ask in asks)


def open_row(peer: Peer, size: int, rate: float, samples: Sequence[Sample]) -> Row:
    """Return the figures of lists that came at random times; what was not answered counts as an error."""
    took_s = [sample.done_s - sample.due_s for sample in samples if sample.status == 200]
    return Row(
        kind="poisson",
        products=size,
        peer=peer.name,
        lists=len(samples),
        p50_ms=_ms(took_s, 0.5),
        p95_ms=_ms(took_s, 0.95),
        p99_ms=_ms(took_s, 0.99),
        pairs_per_s=rate * size,
        rate=rate,
        errors=len(samples) - len(took_s),
    )


def score_errors(
    scores: Scores, reference: Mapping[tuple[int, int], Sequence[float]], manifest: Manifest | None
) -> tuple[float | None, float | None]:
    """Return the largest difference from the sigmoids of the reference logits, and the mean Spearman over lists.

    `manifest` is given for scores that are a bundle's expected gains; their logits are looked up first.
    """
    errors, ranks = [], []
    for key, logits in reference.items():
        if key in scores:
            found = np.asarray(scores[key])
            if manifest is not None:
                found = sigmoid(logits_of(found, manifest))
            errors.append(float(np.abs(found - sigmoid(logits)).max()))
            ranks.append(spearman(found, logits))
    return (max(errors), statistics.mean(ranks)) if errors else (None, None)


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) of each.

    >>> sigmoid([0.0]).tolist()
    [0.5]
    """
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    return result


def logits_of(gains: ArrayLike, manifest: Manifest) -> NDArray[np.float64]:
    """Return the logits whose expected gains these are, by a table of 10^-4 steps; gains rise with the logit."""
    table = relevance(class_probabilities(_LOGITS, manifest.calibration), manifest.labels)
    logits: NDArray[np.float64] = np.interp(np.asarray(gains, dtype=np.float64), table, _LOGITS)
    return logits


def spearman(left: ArrayLike, right: ArrayLike) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    ranks = [_ranks(np.asarray(values)) for values in (left, right)]
    return round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 9)


def refuse_others(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError if an earlier result is not of the same weights and products."""
    if any(before[name] != now[name] for name in ("bundle", "weights", "products") if before):
        raise ValueError("the earlier result is of other weights or products; leave --append out")


def merged(before: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return a result with what an earlier one has besides; figures of the same kind and size are replaced."""
    if not before:
        return now
    refuse_others(before, now)
    measured = {(row["kind"], row["products"]) for row in now["rows"]}
    kept = [row for row in before["rows"] if (row["kind"], row["products"]) not in measured]
    facts = dict(before["facts"])
    for key, fact in now["facts"].items():
        held_mb = facts.get(key, fact)["memory_mb"]
        facts[key] = {**fact, "memory_mb": max(held_mb, fact["memory_mb"])}
    added = {part: {**before.get(part, {}), **now.get(part, {})} for part in ("missing", "foreign_cpu")}
    return {**now, **added, "rows": [*kept, *now["rows"]], "facts": facts}


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


def _ms(seconds: Sequence[float], share: float) -> float | None:
    found = percentile(seconds, share)
    return None if found is None else found * 1_000
