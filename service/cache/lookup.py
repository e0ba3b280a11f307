"""Gets the logits of a list: from memory, the shared cache, another request, or the engine.

Knows the order in which to ask; does not know keys' texts, the engine, Redis or HTTP.
Invariant: a pair is computed only if nobody has its logit in time, and whatever is computed is handed on.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from service.cache.memory import Claims, ScoreCache
from service.cache.shared import SharedCache
from service.domain.budget import Terms

Compute = Callable[[Sequence[int]], Awaitable[Mapping[int, float]]]
"""Computes pairs by their places, by the deadline; what it could not compute is not in the answer."""


async def cached_logits(
    cache: ScoreCache, store: SharedCache | None, keys: Sequence[bytes], compute: Compute, terms: Terms
) -> dict[int, float]:
    """Return logits by place, of all pairs that were known or computed by the deadline of `terms`.

    `compute` is called with the positions that are not cached, and once more if another request gave up on pairs of this one.
    What it raises is raised here, after the requests that wait for its pairs were released.
    """
    with cache.claim(keys, time.monotonic(), terms) as claims:
        logits = dict(claims.known)
        if store is not None:
            logits |= await _look_up(store, claims)
        if claims.to_compute:
            logits |= await _compute(compute, claims.to_compute, claims, store)
            claims.abandon()
        came = await claims.wait(terms.deadline_s - time.monotonic())
        logits |= {index: logit for index, logit in came.items() if logit is not None}
        left = [index for index, logit in came.items() if logit is None]
        if left and time.monotonic() < terms.deadline_s:
            logits |= await _compute(compute, left, claims, store)
    return logits


async def _look_up(store: SharedCache, claims: Claims) -> dict[int, float]:
    """Settle what the shared cache has."""
    keys = {index: claims.keys[index] for index in claims.to_compute}
    if not keys:
        return {}
    known = await store.get_many(list(keys.values()))
    found = {index: known[key] for index, key in keys.items() if key in known}
    claims.resolve(found, time.monotonic())
    return found


async def _compute(
    compute: Compute, positions: Sequence[int], claims: Claims, store: SharedCache | None
) -> Mapping[int, float]:
    """Compute pairs, hand them on, and have them stored."""
    computed = await compute(positions)
    claims.resolve(computed, time.monotonic())
    if store is not None:
        store.put_many({claims.keys[index]: logit for index, logit in computed.items()})
    return computed
