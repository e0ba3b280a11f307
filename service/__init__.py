"""shelfrank's HTTP service: scores how relevant each product of a list is to a query.

Knows how to build the application; does not load anything until asked to.
Invariant: importing this package imports no web framework, no runtime and no tensor library.
"""

import os
from typing import TYPE_CHECKING

# onnxruntime's wheels send usage events to their maker unless they are told not to before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.settings import Settings

__all__ = ["create_app"]


def create_app(settings: "Settings | None" = None) -> "FastAPI":
    """Build the application with a verified and warmed-up bundle.

    Reads the settings from the environment if none are given.
    Raises SettingsError, BundleError or EngineError; nothing is served in that case.
    """
    from service.app.application import API_VERSION, build_app
    from service.boot import (
        build_scorer,
        load_model,
    )  # here, because these imports are what makes the package heavy
    from service.options import load_settings
    from service.rollout.versions import Version, Versions
    from service.settings import SettingsError
    from service.telemetry.metrics import Metrics
    from service.telemetry.tracing import open_tracing

    settings = settings or load_settings([])
    metrics = Metrics()
    versions = Versions(
        Version(load_model(settings.bundle, settings), settings.bundle),
        [Version(load_model(name, settings), name) for name in settings.other_bundles],
        settings.aliases,
    )
    if any(versions.by_name(model) is None for model in settings.aliases.values()):
        raise SettingsError("model_aliases: expected name=model,... of models that are served")
    tracing = open_tracing(settings, API_VERSION)
    return build_app(settings, versions, build_scorer(settings, metrics), metrics, tracing)
