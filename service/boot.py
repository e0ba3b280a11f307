"""Loads everything that ranking needs, in the order in which it can be refused.

Knows settings, bundle and engine; does not know HTTP.
Invariant: what is returned has read, verified and warmed up its bundle; its threads do not run yet.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from bundle import read_bundle
from bundle.errors import UnexpectedBundle
from bundle.store import SHIPPED
from service.cache.memory import ScoreCache
from service.cache.shared import SharedCache, open_shared_cache
from service.catalogue.catalogue import Catalogue
from service.engine.cuda import open_gpu_session
from service.engine.model import LoadedModel
from service.engine.sessions import measure_runs, open_sessions, pick_precision, why_no_words, why_not_native
from service.engine.shapes import make_shapes
from service.errors import EngineError
from service.process.cpus import cpus_to_pin, usable_cpus
from service.scoring.admission import Admission
from service.scoring.queue_entry import WORTHWHILE_TOKENS
from service.scoring.ranker import Ranker
from service.scoring.scorer import Scorer
from service.scoring.worker import WorkerPool
from service.settings import Settings
from service.telemetry.logs import event
from service.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Stores:
    """What is open while the service runs; None where the settings ask for none."""

    shared: SharedCache | None
    catalogue: Catalogue | None

    async def connect(self) -> None:
        """Reach the shared cache, if there is one; the service starts without it too."""
        if self.shared is not None:
            await self.shared.connect()

    async def close(self) -> None:
        """Let go of both."""
        if self.shared is not None:
            await self.shared.close()
        if self.catalogue is not None:
            await asyncio.to_thread(self.catalogue.close)


def worker_count(settings: Settings) -> int:
    """Return how many threads compute: as set, or one on a GPU, or one for each CPU of the quota."""
    return settings.workers or (usable_cpus() if settings.device == "cpu" else 1)


def root_of(name: str, settings: Settings) -> Path:
    """Return the directory that holds a bundle: `models_root`, or the package's if that was not set and has none such."""
    is_set = "models_root" in settings.model_fields_set
    if is_set or (settings.models_root / name).exists() or not (SHIPPED / name).exists():
        return settings.models_root
    return SHIPPED


def load_model(name: str, settings: Settings) -> LoadedModel:
    """Read and verify a bundle, open its sessions and time them; BundleError or EngineError."""
    began_s = time.monotonic()
    bundle = read_bundle(root_of(name, settings), name)
    if settings.bundle_ids and bundle.id not in settings.bundle_ids.split(","):
        raise UnexpectedBundle(f"bundle {name} has the id {bundle.id}, which is not among bundle_ids")
    precision = pick_precision(settings.precision, settings.device, bundle.manifest)
    workers = worker_count(settings)
    no_words = why_no_words(settings.engine)
    if settings.device == "cpu":
        sessions = open_sessions(bundle, precision=precision, workers=workers, engine=settings.engine)
        model = LoadedModel(bundle, precision, "cpu", sessions, words=not no_words)
        timings = measure_runs(sessions[0], model.longest)
    elif settings.engine == "native":
        raise EngineError("engine is native, which computes on the CPU alone: set device to cpu")
    else:
        shapes = make_shapes(bundle.manifest.text.max_length, settings.gpu_run_tokens)
        cache = Path(settings.tensorrt_cache) if settings.tensorrt_cache else None
        session = open_gpu_session(
            bundle, precision=precision, device=settings.device, shapes=shapes, cache=cache
        )
        model = LoadedModel(bundle, precision, settings.device, [session] * workers, shapes, not no_words)
        timings = session.timings()
    for tokens, rows, seconds in timings:
        model.costs.observe(tokens, rows, seconds)
    layout = bundle.manifest.graph(precision).layout
    why_not = why_not_native(settings.engine, layout) if settings.device == "cpu" else ""
    event(
        "loaded",
        model=model.id,
        bundle=bundle.id,
        precision=precision,
        device=settings.device,
        engine=model.engine,
        not_native=why_not or None,
        no_words=no_words or None,
        workers=workers,
        seconds=round(time.monotonic() - began_s, 3),
    )
    return model


def open_ranker(settings: Settings, scorer: Scorer, metrics: Metrics) -> tuple[Ranker, Stores]:
    """Return the ranker on what the settings give it; CatalogueError or SettingsError if a part cannot be used."""
    cache = shared = catalogue = None
    if settings.cache_bytes:
        cache = ScoreCache(settings.cache_bytes, settings.cache_ttl_s, metrics.cache)
    url = settings.cache_url.get_secret_value()
    if url and cache is not None:
        timeout_s = settings.cache_timeout_ms / 1_000
        shared = open_shared_cache(url, metrics.cache, timeout_s=timeout_s, ttl_s=settings.cache_ttl_s)
    if settings.catalogue:
        catalogue = Catalogue(Path(settings.catalogue), settings.catalogue_max_bytes)
        metrics.catalogue.products.set_function(catalogue.count)
        metrics.catalogue.bytes.set_function(catalogue.size_bytes)
    ranker = Ranker(
        scorer, cache=cache, shared=shared, catalogue=catalogue, catalogue_meter=metrics.catalogue
    )
    return ranker, Stores(shared, catalogue)


def build_scorer(settings: Settings, metrics: Metrics) -> Scorer:
    """Return the scorer on its pool of workers, which do not run yet."""

    def on_error(error: Exception) -> None:
        metrics.worker_errors.inc()
        event("worker_error", logging.ERROR, kind=type(error).__name__)

    weights = settings.tenant_weights
    workers = worker_count(settings)
    is_on_cpu = settings.device == "cpu"
    pool = WorkerPool(
        workers,
        weights,
        on_drop=metrics.dropped.inc,
        on_error=on_error,
        fill_tokens=WORTHWHILE_TOKENS if is_on_cpu else settings.gpu_run_tokens,
        cpus=cpus_to_pin(workers) if settings.pin and is_on_cpu else (),
    )
    return Scorer(pool, Admission(settings.queue_tokens, weights))
