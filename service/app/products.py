"""The handlers of the product catalogue, and what keeps its payloads up to date with the models that are served.

Knows requests and responses, the catalogue and the models' encoders; does not know how products are stored.
Invariant: the event loop waits for no disk, and one request at a time writes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec
from fastapi import Request, Response

from bundle import PairEncoder
from service.api.products import delete_product, delete_products, is_ndjson, show_product, store_products
from service.catalogue.catalogue import Catalogue
from service.errors import Reason, Refused
from service.http.guard import read_body
from service.http.middleware import JsonResponse
from service.rollout.versions import Versions
from service.settings import Settings
from service.telemetry.logs import event

UPKEEP_S: Final = 2.0
"""How often it is looked whether other models are served, whose payloads are to be made."""


class ProductsApi:
    """The handlers; without a catalogue all of them refuse."""

    def __init__(self, settings: Settings, catalogue: Catalogue | None, versions: Versions) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._versions = versions
        self._writing = asyncio.Lock()

    async def put(self, request: Request) -> Response:
        """Store products, all of the request or none."""
        catalogue = self._require_catalogue()
        ndjson = is_ndjson(request.headers.get("content-type", ""))
        body = await self._read(request, lines=True)
        work = partial(store_products, catalogue, self._encoders(), body, self._settings, ndjson=ndjson)
        return await self._write(work)

    async def delete_many(self, request: Request) -> Response:
        """Delete the products that the request names."""
        catalogue = self._require_catalogue()
        return await self._write(partial(delete_products, catalogue, await self._read(request)))

    async def get(self, request: Request) -> Response:
        """Show one product."""
        encoder = self._versions.stable.model.encoder
        work = partial(show_product, self._require_catalogue(), encoder, request.path_params["product"])
        return JsonResponse(msgspec.json.encode(await asyncio.to_thread(work)))

    async def delete(self, request: Request) -> Response:
        """Delete one product."""
        return await self._write(
            partial(delete_product, self._require_catalogue(), request.path_params["product"])
        )

    async def maintain_payloads(self) -> None:
        """Make the payloads that the models lack, as models come and go, and drop those of models that have gone."""
        catalogue, done = self._catalogue, frozenset[str]()
        while catalogue is not None:
            encoders = self._encoders()
            wanted = frozenset(encoder.text_key for encoder in encoders)
            if wanted != done:
                try:
                    made = sum([await _run_steps(catalogue.rebuild(encoder)) for encoder in encoders])
                    dropped = await _run_steps(catalogue.prune(wanted))
                except (
                    Refused
                ) as refusal:  # full, or its disk fails: products are tokenized as they are asked for
                    event("catalogue_not_rebuilt", logging.ERROR, reason=refusal.reason.code)
                else:
                    event("catalogue_rebuilt", products=catalogue.count(), made=made, dropped=dropped)
                done = wanted
            await asyncio.sleep(UPKEEP_S)

    def _require_catalogue(self) -> Catalogue:
        if self._catalogue is None:
            raise Refused(Reason.CATALOGUE_OFF)
        return self._catalogue

    def _encoders(self) -> list[PairEncoder]:
        """One encoder for each way in which the models that are served read texts."""
        encoders = (version.model.encoder for version in self._versions.roles())
        return list({encoder.text_key: encoder for encoder in encoders}.values())

    async def _read(self, request: Request, *, lines: bool = False) -> bytes:
        limit = self._settings.products_max_body_bytes
        return await read_body(request.scope["headers"], request.receive, limit, lines=lines)

    async def _write(self, work: Callable[[], msgspec.Struct]) -> Response:
        async with self._writing:
            return JsonResponse(msgspec.json.encode(await asyncio.to_thread(work)))


async def _run_steps(steps: Iterator[int]) -> int:
    """Go through an iterator of counts on threads, step by step; return their sum."""
    total = 0
    while (count := await asyncio.to_thread(next, steps, None)) is not None:
        total += count
    return total
