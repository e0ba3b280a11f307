"""API keys: whose request this is, and how keys change while the service runs.

Knows headers and the key file; does not know routes or what a tenant may do.
Invariant: every key is compared, in constant time; a key file that cannot be read changes nothing; no key is kept.
"""

import asyncio
import hmac
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import KeyFileError
from service.telemetry.logs import event
from service.telemetry.metrics import Metrics

CHECK_EVERY_S: Final = 1.0
MAX_FILE_BYTES: Final = 262_144
MAX_KEYS: Final = 1_000  # all are compared for each request, in about 0.2 ms
KEYLESS_PATHS: Final = frozenset({"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"})
TENANT: Final = "shelfrank.tenant"  # where in a scope it stands whose key a request came with
_LINE: Final = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})[ \t]+([0-9a-f]{64})")
_BEARER: Final = re.compile(rb"bearer[ ]+([\x21-\x7e]+)[ ]*", re.IGNORECASE)
_PLAIN: Final = frozenset({b"x-api-key", b"api-key"})

Reject = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who holds a key, and the sha256 of it."""

    tenant: str
    digest: bytes


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """PURE. Read the lines of a key file, or KeyFileError, which names the line but not what stands there."""
    keys: dict[bytes, ApiKey] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise KeyFileError(f"line {number}: expected a tenant's name and the sha256 of a key in hex")
        key = ApiKey(found[1], bytes.fromhex(found[2]))
        if key.digest in keys:
            raise KeyFileError(f"line {number}: this key was given before")
        keys[key.digest] = key
    if not 1 <= len(keys) <= MAX_KEYS:
        raise KeyFileError(f"expected 1 to {MAX_KEYS} keys, found {len(keys)}")
    return tuple(keys.values())


def shown_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """PURE. Return the one key that a request shows; None if it shows none, or two that differ."""
    shown = set()
    for name, value in headers:
        if name in _PLAIN:
            shown.add(value)
        elif name == b"authorization" and (bearer := _BEARER.fullmatch(value)):
            shown.add(bearer[1])
    return shown.pop() if len(shown) == 1 else None


def find_tenant(keys: Iterable[ApiKey], shown: bytes) -> str | None:
    """PURE. Return who holds a key; all keys are compared, so that the time taken does not tell which one it was."""
    digest, tenant = sha256(shown).digest(), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            tenant = key.tenant
    return tenant


class ApiKeys:
    """The keys of a file, as it was when it last made sense."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Read the file; KeyFileError if that cannot be done."""
        self._path = path
        self._metrics = metrics
        self._seen = self._state()
        self.keys = self._read()

    async def watch(self) -> None:
        """Follow the file for ever, off the event loop."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Read the file again if it has changed; if it makes no sense now, keep the keys, and say so once."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self.keys = self._read()
        except KeyFileError as error:
            self._metrics.key_file_errors.inc()
            event("keys_refused", logging.ERROR, why=str(error), kept=len(self.keys))
        else:
            event("keys_changed", keys=len(self.keys), tenants=len({key.tenant for key in self.keys}))

    def _state(self) -> tuple[int, ...] | None:
        """What changes when the file does; a link, as Kubernetes mounts secrets, is followed."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> tuple[ApiKey, ...]:
        try:
            with open(self._path, "rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
            if len(raw) > MAX_FILE_BYTES:
                raise KeyFileError(f"expected at most {MAX_FILE_BYTES} bytes")
            return parse_keys(raw.decode("ascii"))
        except OSError as error:
            raise KeyFileError(f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise KeyFileError("expected ASCII") from None


class ApiKeyMiddleware:
    """ASGI middleware that rejects requests without a valid key, except to the health paths."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, reject: Reject) -> None:
        self._app = app
        self._keys = keys
        self._reject = reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the tenant in the scope, or refuse."""
        if scope["type"] == "http" and scope["path"] not in KEYLESS_PATHS:
            shown = shown_key(scope["headers"])
            tenant = None if shown is None else find_tenant(self._keys.keys, shown)
            if tenant is None:
                await self._reject(Request(scope))(scope, receive, send)
                return
            scope[TENANT] = tenant
        await self._app(scope, receive, send)
