"""Ranks a list by whatever is known of it: products by id, logits from before or from other requests, then the engine.

Knows the order in which to ask; does not know how anything is stored, computed or sent.
Invariant: every product is ranked once, and a pair scores the same wherever its logit came from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar, cast

import numpy as np

from bundle import Product
from service.cache.lookup import cached_logits
from service.cache.memory import ScoreCache
from service.cache.packed_logits import pack_usage, unpack_usage
from service.cache.pair_keys import pair_keys, product_digest
from service.cache.shared import SharedCache
from service.catalogue.catalogue import Catalogue
from service.catalogue.record import ResolvedProduct
from service.domain.budget import RESPOND_S, Terms
from service.domain.query import Reference, RequestedProduct, text_chars
from service.domain.ranking import Cause, Ranking, rank_products
from service.engine.model import LoadedModel
from service.scoring.job import EncodableGroups
from service.scoring.scorer import Scorer
from service.telemetry.meters import CatalogueMeter

Result = TypeVar("Result")
LOOP_DIGESTS: Final = 256
LOOP_DIGEST_CHARS: Final = 65_536
"""Digests made on the event loop, within 0.3 ms, and the characters in them; more are made by a worker."""

RequestedGroups = Sequence[tuple[str, Sequence[RequestedProduct]]]


class Ranker:
    """Ranks for one application; its parts that are None are not asked."""

    def __init__(
        self,
        scorer: Scorer,
        *,
        cache: ScoreCache | None = None,
        shared: SharedCache | None = None,
        catalogue: Catalogue | None = None,
        catalogue_meter: CatalogueMeter | None = None,
    ) -> None:
        self._scorer = scorer
        self._cache = cache
        self._shared = shared
        self._catalogue = catalogue
        self._meter = catalogue_meter

    async def rank(
        self, model: LoadedModel, groups: RequestedGroups, terms: Terms, *, measured: bool = False
    ) -> Ranking:
        """Rank the products of several queries as one list; Refused as `Scorer.rank` says.

        A ranking that is to be `measured` asks no cache, since it wants to know how the engine comes to its scores.
        """
        if self._cache is None and not (self._catalogue is not None and _has_references(groups)):
            return await self._scorer.rank(model, cast("EncodableGroups", groups), terms, measured=measured)
        known = await self._resolve(model, groups, as_texts=measured)
        positions = [position for position, item in enumerate(known) if item is not None]
        if self._cache is None or measured:
            found = await self._compute(model, groups, known, positions, terms, measured=measured)
            return (
                found
                if len(positions) == len(known)
                else _merged(model, len(known), {}, [(positions, found)], known)
            )
        return await self._with_cache(self._cache, model, groups, known, positions, terms)

    async def _with_cache(  # noqa: PLR0913, PLR0917  what a list is made of
        self,
        cache: ScoreCache,
        model: LoadedModel,
        groups: RequestedGroups,
        known: Sequence[ResolvedProduct | None],
        positions: Sequence[int],
        terms: Terms,
    ) -> Ranking:
        parts: list[tuple[Sequence[int], Ranking]] = []

        async def compute(chosen: Sequence[int]) -> Mapping[int, float]:
            of = [positions[index] for index in chosen]
            part = await self._compute(model, groups, known, of, terms)
            parts.append((of, part))
            rows = len(part.lengths)
            logits = [
                *pack_usage(part.logits[:rows], part.lengths, part.cut).tolist(),
                *part.logits[rows:].tolist(),
            ]
            if not part.unscored.total:
                return dict(zip(chosen, logits, strict=True))
            computed = np.flatnonzero(part.causes == Cause.SCORED).tolist()
            return {chosen[position]: logits[position] for position in computed}

        keys = _keys(model, groups, known)
        due = replace(terms, deadline_s=terms.deadline_s - RESPOND_S)
        logits = await cached_logits(cache, self._shared, keys, compute, due)
        if len(parts) == 1 and len(parts[0][0]) == len(known):
            return parts[0][1]
        return _merged(
            model, len(known), {positions[index]: logit for index, logit in logits.items()}, parts, known
        )

    async def _compute(  # noqa: PLR0913  as above
        self,
        model: LoadedModel,
        groups: RequestedGroups,
        known: Sequence[ResolvedProduct | None],
        positions: Sequence[int],
        terms: Terms,
        *,
        measured: bool = False,
    ) -> Ranking:
        """Have the products at some places scored, which are in order."""
        if len(positions) == len(known) and len(groups) == 1:
            products = [item.product for item in known if item is not None]
            return await self._scorer.rank(model, [(groups[0][0], products)], terms, measured=measured)
        chosen = set(positions)
        wanted: EncodableGroups = []
        start = 0
        for query, asked in groups:
            of = range(start, start + len(asked))
            wanted.append(
                (query, [item.product for position in of if position in chosen and (item := known[position])])
            )
            start += len(asked)
        return await self._scorer.rank(model, wanted, terms, measured=measured)

    async def _resolve(
        self, model: LoadedModel, groups: RequestedGroups, *, as_texts: bool
    ) -> list[ResolvedProduct | None]:
        """Return what is known of each product; ids not asked for lately go to a worker, for the disk may be slow."""
        asked = [product for _, products in groups for product in products]
        references = [product for product in asked if isinstance(product, Reference)]
        found: Mapping[int, ResolvedProduct | None] = {}
        if self._catalogue is not None and references:
            known = await self._resolve_references(self._catalogue, model, references, as_texts=as_texts)
            if len(references) == len(asked):
                return known
            found = dict(zip(map(id, references), known, strict=True))
        texts = [product for product in asked if isinstance(product, Product)]
        digests = [b""] * len(texts)
        if self._cache is not None:
            digests = await self._digests(texts)
        of_texts = map(ResolvedProduct, texts, digests)
        return [
            found.get(id(product)) if isinstance(product, Reference) else next(of_texts) for product in asked
        ]

    async def _resolve_references(
        self, catalogue: Catalogue, model: LoadedModel, references: Sequence[Reference], *, as_texts: bool
    ) -> list[ResolvedProduct | None]:
        """Return what is known of each reference, and count it."""
        known = None if as_texts else _lookup_recent(catalogue, model, references)
        if known is None:
            known = await self._offload(lambda: _look_up(catalogue, model, references, as_texts=as_texts))
        if self._meter is not None:
            misses = sum(item is None for item in known)  # `count` would compare each with None
            self._meter.hits.inc(len(known) - misses)
            self._meter.misses.inc(misses)
        return known

    async def _digests(self, products: Sequence[Product]) -> list[bytes]:
        """Return the digests of products, of many or long ones by a worker."""
        if len(products) <= LOOP_DIGESTS and sum(map(text_chars, products)) <= LOOP_DIGEST_CHARS:
            return list(map(product_digest, products))
        return await self._offload(lambda: list(map(product_digest, products)))

    async def _offload(self, function: Callable[[], Result]) -> Result:
        """Have a worker do something, unless nobody waits for it any more."""
        result = self._scorer.offload(function)
        try:
            return await result
        finally:
            result.cancel()


def _keys(
    model: LoadedModel, groups: RequestedGroups, known: Sequence[ResolvedProduct | None]
) -> list[bytes]:
    """Return the cache's keys of all products that are known, in order."""
    keys: list[bytes] = []
    start = 0
    for query, asked in groups:
        digests = [item.digest for item in known[start : start + len(asked)] if item is not None]
        keys += pair_keys(model.key, query, digests)
        start += len(asked)
    return keys


def _has_references(groups: RequestedGroups) -> bool:
    return any(isinstance(asked, Reference) for _, products in groups for asked in products)


def _lookup_recent(
    catalogue: Catalogue, model: LoadedModel, references: Sequence[Reference]
) -> list[ResolvedProduct | None] | None:
    """Find products by their ids alone if all were looked up lately."""
    if any(reference.product is not None for reference in references):
        return None
    return catalogue.lookup_recent([reference.id for reference in references], model.encoder.text_key)


def _look_up(
    catalogue: Catalogue, model: LoadedModel, references: Sequence[Reference], *, as_texts: bool
) -> list[ResolvedProduct | None]:
    """Find products by their ids; one that is not there is known by the fields that were sent with its id, if any."""
    ids = [reference.id for reference in references]
    if as_texts:
        records = [catalogue.get(identifier) for identifier in ids]
        stored = [None if record is None else ResolvedProduct(*record) for record in records]
    else:
        stored = catalogue.lookup(ids, model.encoder.text_key)
    known: list[ResolvedProduct | None] = []
    for reference, found in zip(references, stored, strict=True):
        given = reference.product
        if given is None:
            known.append(found)
        elif found is None:
            known.append(ResolvedProduct(given, product_digest(given)))
        else:
            known.append(found.with_overrides(given))
    return known


def _merged(
    model: LoadedModel,
    products: int,
    cached: Mapping[int, float],
    parts: Sequence[tuple[Sequence[int], Ranking]],
    known: Sequence[ResolvedProduct | None],
) -> Ranking:
    """Put together what came from several places, in the order of the request."""
    logits = np.full(products, np.nan, np.float32)
    causes = np.full(products, Cause.DEADLINE, np.int8)
    causes[[position for position, item in enumerate(known) if item is None]] = Cause.UNKNOWN_ID
    for positions, part in parts:
        logits[list(positions)] = part.logits
        causes[list(positions)] = part.causes
    logits[list(cached)] = list(cached.values())
    causes[list(cached)] = Cause.SCORED
    ranked, unscored = rank_products(logits, causes, model.bundle.manifest)
    rankings = [part for _, part in parts]
    computed = {
        position
        for positions, part in parts
        for position in np.array(positions)[part.causes == Cause.SCORED].tolist()
    }
    cached_tokens, cached_cut = unpack_usage(
        [logit for position, logit in cached.items() if position not in computed]
    )
    return Ranking(
        products=ranked,
        logits=logits,
        causes=causes,
        unscored=unscored,
        admitted=products - sum(len(part.products) - part.admitted for part in rankings),
        rows=sum(part.rows for part in rankings),
        tokens=sum(part.tokens for part in rankings),
        padding_tokens=sum(part.padding_tokens for part in rankings),
        truncated=sum(part.truncated for part in rankings),
        unknown_tokens=_added([part.unknown_tokens for part in rankings]),
        tokenize_s=sum(part.tokenize_s for part in rankings),
        queue_s=sum(part.queue_s for part in rankings),
        infer_s=sum(part.infer_s for part in rankings),
        measure_s=sum(part.measure_s for part in rankings),
        uses=tuple(use for part in rankings for use in part.uses),
        cached=len(cached) - len(computed & cached.keys()),
        cached_tokens=cached_tokens,
        cached_cut=cached_cut,
    )


def _added(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
