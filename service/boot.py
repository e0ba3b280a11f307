"""Loads everything that ranking needs, in the order in which it can be refused.

Knows settings, bundle and engine; does not know HTTP.
Invariant: what is returned has read, verified and warmed up its bundle; its threads do not run yet.
"""

import logging
import time

from bundle import read_bundle
from service.cpus import usable_cpus
from service.engine import open_sessions, pick_precision
from service.logs import event
from service.metrics import Metrics
from service.scorer import Scorer
from service.settings import Settings
from service.worker import WorkerPool


def load_scorer(settings: Settings, metrics: Metrics) -> Scorer:
    """Read and verify the bundle and open a session for each worker; BundleError or EngineError."""
    began_s = time.monotonic()
    bundle = read_bundle(settings.models_root, settings.bundle)
    precision = pick_precision(settings.precision, settings.device, bundle.manifest)
    workers = settings.workers or (1 if settings.device == "cuda" else usable_cpus())
    sessions = open_sessions(bundle, precision=precision, device=settings.device, workers=workers)

    def on_error(error: Exception) -> None:
        metrics.worker_errors.inc()
        event("worker_error", logging.ERROR, kind=type(error).__name__)

    manifest = bundle.manifest
    metrics.model_info.labels(manifest.name, manifest.version, bundle.id, precision, settings.device).set(1)
    event(
        "loaded",
        model=f"{manifest.name}@{manifest.version}",
        bundle=bundle.id,
        precision=precision,
        device=settings.device,
        workers=workers,
        seconds=round(time.monotonic() - began_s, 3),
    )
    pool = WorkerPool(sessions, on_drop=metrics.dropped.inc, on_error=on_error)
    return Scorer(bundle, pool, precision)
