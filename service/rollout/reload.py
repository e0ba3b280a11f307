"""Brings other models into service and takes them out again: reload, canary, shadow.

Knows what is served and how a bundle is loaded; does not know HTTP, signals or requests.
Invariant: a model serves only after its bundle was verified and warmed up; whatever fails changes nothing, and is
logged, counted and reported. One is loaded at a time, off the event loop; the change itself is one step on it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from bundle import BundleError
from bundle.manifest import is_name
from service.engine.model import LoadedModel
from service.errors import EngineError, Reason, Refused
from service.process.memory import trim_heap
from service.rollout.models import Role
from service.rollout.trial import AbortReason
from service.rollout.versions import Candidate, CandidateRole, Version, Versions
from service.telemetry.logs import event
from service.telemetry.meters import CANDIDATE_ROLES
from service.telemetry.metrics import Metrics

STATUSES: Final = {"not_found": 404, "already_served": 409, "engine": 422, "load_failed": 500}
REFUSED_BUNDLE: Final = 422
SETTLE_S: Final = 1.0  # by then the requests that still had a model which was replaced are answered


class LoadFailed(Exception):
    """Another model was asked for and is not served; `code` is that of a BundleError, or one of `STATUSES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """HTTP status of an admin call that fails so."""
        return STATUSES.get(self.code, REFUSED_BUNDLE)


class Rollout:
    """Changes what `versions` serves; `load` reads, verifies and warms up a bundle by its directory."""

    def __init__(self, versions: Versions, metrics: Metrics, load: Callable[[str], LoadedModel]) -> None:
        self._versions = versions
        self._metrics = metrics
        self._load = load
        self._loading = asyncio.Lock()
        self._wanted = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """Whether a bundle is being loaded."""
        return self._loading.locked()

    def request_reload(self) -> None:
        """Have `watch` reload the stable bundle, once for all that want it meanwhile."""
        self._wanted.set()

    async def watch(self) -> None:
        """Reload whenever it is wanted, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            with contextlib.suppress(LoadFailed):  # reported already
                await self.reload()

    async def reload(self, directory: str | None = None) -> None:
        """Replace the stable model by the bundle of a directory, or by what is now in its own; LoadFailed."""
        async with self._loading:
            found = self._versions.stable.directory if directory is None else directory
            version = await self._loaded(found, "stable")
            self._replace(version, "reloaded")

    async def admit(self, role: CandidateRole, directory: str, share: float) -> None:
        """Put a bundle beside the stable one, in the place of another in this role; LoadFailed."""
        async with self._loading:
            candidate = Candidate(await self._loaded(directory, role), share)
            self._metrics.rollout.clear_agreement(role)
            self._versions.admit(role, candidate)
            _trim_heap_later()
            facts = candidate.version.facts
            event(f"{role}_started", model=facts.id, bundle=facts.bundle, share=share)

    def promote(self) -> None:
        """Make the canary the stable model; Refused if there is none."""
        self._replace(self._dismiss("canary").version, "promoted")

    def dismiss(self, role: CandidateRole) -> None:
        """Take the model of a role out; Refused if there is none."""
        facts = self._dismiss(role).version.facts
        event(f"{role}_ended", model=facts.id, bundle=facts.bundle)

    def abort(self, reason: AbortReason) -> None:
        """Take the canary out because it does badly."""
        canary = self._dismiss("canary")
        self._metrics.rollout.aborts.inc()
        facts, agreement = canary.version.facts, canary.trial.agreement
        event(
            "canary_aborted",
            logging.ERROR,
            model=facts.id,
            bundle=facts.bundle,
            reason=reason,
            answers=canary.trial.candidate.answers,
            failing=round(canary.trial.candidate.failing, 4),
            lists=canary.trial.lists,
            overlap_at_10=None if agreement is None else round(agreement.overlap_at_10, 4),
            kendall_tau=None if agreement is None else round(agreement.kendall_tau, 4),
        )

    def _replace(self, version: Version, how: str) -> None:
        was = self._versions.stable.facts.bundle
        self._versions.replace(version)
        for role in CANDIDATE_ROLES:
            self._metrics.rollout.clear_agreement(role)
        _trim_heap_later()
        event(how, model=version.facts.id, bundle=version.facts.bundle, was=was)

    def _dismiss(self, role: CandidateRole) -> Candidate:
        left = self._versions.dismiss(role)
        if left is None:
            raise Refused(Reason.NO_CANDIDATE)
        self._metrics.rollout.clear_agreement(role)
        _trim_heap_later()
        return left

    async def _loaded(self, directory: str, role: Role) -> Version:
        try:
            version = await asyncio.to_thread(lambda: Version(self._load(directory), directory))
        except Exception as error:  # a bundle can fail in any way; all are counted, logged and reported
            raise self._failed(_failure(error), directory, role) from error
        if self._versions.is_taken(version.model, role):
            taken = LoadFailed("already_served", "A model of this name and version has another role here.")
            raise self._failed(taken, directory, role)
        self._metrics.rollout.reloads["done"].inc()
        return version

    def _failed(self, failure: LoadFailed, directory: str, role: Role) -> LoadFailed:
        self._metrics.rollout.reloads["failed"].inc()
        _trim_heap_later()
        named = directory if is_name(directory) else ""
        event("reload_failed", logging.ERROR, role=role, directory=named, code=failure.code)
        return failure


def _failure(error: Exception) -> LoadFailed:
    """Put an error into the closed set; of an unforeseen one only the type is named."""
    if isinstance(error, BundleError):
        return LoadFailed(error.code, str(error))
    if isinstance(error, EngineError):
        return LoadFailed("engine", str(error))
    return LoadFailed("load_failed", f"Loading failed with {type(error).__name__}.")


def _trim_heap_later() -> None:
    """Give memory back when the model that has gone is needed no more."""
    loop = asyncio.get_running_loop()
    loop.call_later(SETTLE_S, loop.run_in_executor, None, trim_heap)
