"""The admin calls that change which models are served: who may make them, their bodies and answers.

Knows paths, bodies and the admin key; does not know how a bundle is loaded or requests are ranked.
Invariant: they are on the second listener alone, never for a web page, and never open beyond this machine without a key.

Without a key anyone who can connect may call, so the calls are closed where that is more than this machine. A browser
names the page that it calls for in `origin`, whatever a page does; none of ours has a business here.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from service.api.schema import ErrorAnswer, decode
from service.errors import Reason, Refused
from service.http.guard import read_body
from service.http.keys import shown_key
from service.http.middleware import JsonResponse, context_of
from service.rollout.models import Role
from service.rollout.reload import LoadFailed, Rollout
from service.rollout.versions import Candidate, CandidateRole, Versions
from service.settings import Settings

MAX_BODY_BYTES: Final = 4_096
SHARES: Final[dict[CandidateRole, float]] = {"canary": 0.1, "shadow": 1.0}

Handler = Callable[[Request], Awaitable[Response]]


class ReloadRequest(Struct, forbid_unknown_fields=True):
    """Which bundle is to be the stable one; null takes what is now in its directory."""

    bundle: str | None = None


class CandidateRequest(Struct, forbid_unknown_fields=True):
    """Which bundle comes beside the stable one, and for which share of requests."""

    bundle: str
    share: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None


class ServedModelStatus(Struct):
    """A model that is served, and how it does beside the stable one if it is a candidate."""

    role: Role
    model: str
    bundle: str
    directory: str
    precision: str
    share: float | None = None
    answers: int | None = None
    failing: float | None = None
    lists: int | None = None
    overlap_at_10: float | None = None
    kendall_tau: float | None = None
    score_difference: float | None = None


_RELOAD: Final = msgspec.json.Decoder(ReloadRequest)
_CANDIDATE: Final = msgspec.json.Decoder(CandidateRequest)


def is_loopback(host: str) -> bool:
    """PURE. Return whether only this machine can connect to an address that is listened on.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.7", "")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RolloutApi:
    """The handlers of the admin calls."""

    def __init__(self, settings: Settings, versions: Versions, rollout: Rollout) -> None:
        self._settings = settings
        self._versions = versions
        self._rollout = rollout

    def routes(self) -> Sequence[BaseRoute]:
        """Return all calls with their paths."""
        calls: Sequence[tuple[str, str, Handler]] = (
            ("GET", "/admin/models", self._list),
            ("POST", "/admin/reload", self._reload),
            ("POST", "/admin/canary", self._admitting("canary")),
            ("DELETE", "/admin/canary", self._dismissing("canary")),
            ("POST", "/admin/canary/promote", self._promote),
            ("POST", "/admin/shadow", self._admitting("shadow")),
            ("DELETE", "/admin/shadow", self._dismissing("shadow")),
        )
        return [Route(path, self._locked(handler), methods=[method]) for method, path, handler in calls]

    async def _list(self, request: Request) -> Response:  # noqa: ARG002  as the other handlers
        candidates = {each.version: each for each in self._versions.candidates.values()}
        models = []
        for version, role in self._versions.roles().items():
            facts = version.facts
            entry = ServedModelStatus(role, facts.id, facts.bundle, version.directory, facts.precision)
            if version in candidates:
                _add_trial(entry, candidates[version])
            models.append(entry)
        return JsonResponse(msgspec.json.encode({"models": models}))

    async def _reload(self, request: Request) -> Response:
        call = decode(_RELOAD, await self._body(request) or b"{}")
        self._refuse_if_loading()
        await self._rollout.reload(call.bundle)
        return await self._list(request)

    async def _promote(self, request: Request) -> Response:
        self._rollout.promote()
        return await self._list(request)

    def _admitting(self, role: CandidateRole) -> Handler:
        async def admit(request: Request) -> Response:
            call = decode(_CANDIDATE, await self._body(request))
            self._refuse_if_loading()
            await self._rollout.admit(role, call.bundle, SHARES[role] if call.share is None else call.share)
            return await self._list(request)

        return admit

    def _dismissing(self, role: CandidateRole) -> Handler:
        async def dismiss(request: Request) -> Response:
            self._rollout.dismiss(role)
            return await self._list(request)

        return dismiss

    def _locked(self, handler: Handler) -> Handler:
        """Let a call in or refuse it, and say what became of a bundle that could not be loaded."""

        async def locked(request: Request) -> Response:
            self._check(request)
            try:
                return await handler(request)
            except LoadFailed as failed:
                answer = ErrorAnswer(
                    failed.code, str(failed), str(failed), ["bundle"], context_of(request).id
                )
                return JsonResponse(msgspec.json.encode(answer), status_code=failed.status)

        return locked

    def _check(self, request: Request) -> None:
        key = self._settings.admin_key.get_secret_value()
        if "origin" in request.headers or not (key or is_loopback(self._settings.admin_host)):
            raise Refused(Reason.ADMIN_LOCKED)
        if key:
            shown = shown_key(request.scope["headers"]) or b""
            if not hmac.compare_digest(sha256(shown).digest(), sha256(key.encode()).digest()):
                raise Refused(Reason.UNAUTHENTICATED)

    def _refuse_if_loading(self) -> None:
        if self._rollout.is_busy:
            raise Refused(Reason.LOADING)

    @staticmethod
    async def _body(request: Request) -> bytes:
        return await read_body(request.scope["headers"], request.receive, MAX_BODY_BYTES, typed=False)


def _add_trial(entry: ServedModelStatus, candidate: Candidate) -> None:
    trial = candidate.trial
    entry.share, entry.lists = candidate.share, trial.lists
    entry.answers, entry.failing = trial.candidate.answers, trial.candidate.failing
    if trial.agreement is not None:
        entry.overlap_at_10 = trial.agreement.overlap_at_10
        entry.kendall_tau = trial.agreement.kendall_tau
        entry.score_difference = trial.agreement.score_difference
