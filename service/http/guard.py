"""Reads a request's body within its limits, and notices when the client has gone.

Knows ASGI messages and headers; does not know what a body means.
Invariant: no more than the limit is ever held, packed or not, and no work is done for a client that has hung up.
The time to receive a request is kept by `service.http.protocol`.
"""

import asyncio
import codecs
import re
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar

from starlette.types import Receive

from service.errors import ClientDisconnected, Reason, Refused
from service.http.inflate import inflate

Result = TypeVar("Result")
Headers = Iterable[tuple[bytes, bytes]]
_JSON: Final = frozenset({b"application/json"})
_JSON_OR_LINES: Final = _JSON | {b"application/x-ndjson", b"application/ndjson", b"application/jsonl"}
_BYTES: Final = b"application/octet-stream"
_UTF_8: Final = frozenset({b"utf-8", b"utf8"})
_GZIP: Final = ([b"gzip"], [b"x-gzip"])
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


async def read_body(
    headers: Headers,
    receive: Receive,
    max_bytes: int,
    *,
    typed: bool = True,
    lines: bool = False,
) -> bytes:
    """Return the body of a JSON request; Refused if it is no JSON or too large, ClientGone if cut off.

    A request that need not be `typed` may also have no content type, or that of plain bytes; one that may be `lines`
    may also say that it is one JSON document a line. What came as gzip is unpacked, within the same limit; a mark of
    the byte order, which some systems put before UTF-8, is left out.
    """
    is_packed = _check_headers(headers, max_bytes, typed=typed, lines=lines)
    body = await _received(receive, max_bytes)
    if is_packed:
        body = await asyncio.to_thread(
            inflate, body, max_bytes
        )  # a few milliseconds, in which zlib lets others run
    return body.removeprefix(codecs.BOM_UTF8)


async def _received(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise Refused(Reason.BODY_TOO_LARGE)
        if not message.get("more_body", False):
            return bytes(body)


async def cancel_on_disconnect(work: Awaitable[Result], receive: Receive) -> Result:
    """Wait for a result; ClientGone, and the work cancelled, if the client hangs up first.

    `receive` has to be the server's own: a middleware in between may hide that the client has gone.
    """
    task = asyncio.current_task()
    assert task is not None, "outside of a task"
    is_waiting = True

    def interrupt(gone: asyncio.Task[None]) -> None:
        if is_waiting and not gone.cancelled():
            task.cancel()

    gone = asyncio.ensure_future(_wait_for_disconnect(receive))
    gone.add_done_callback(interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            task.uncancel()
            raise ClientDisconnected from None
        raise
    finally:
        is_waiting = False
        gone.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_headers(headers: Headers, max_bytes: int, *, typed: bool, lines: bool) -> bool:
    """Refuse a body that is too large or no JSON by its headers; return whether it is packed."""
    kinds, codings = [], list[bytes]()
    for name, value in headers:
        if name == b"content-type":
            kinds.append(value)
        elif name == b"content-encoding":
            codings += [coding.strip() for coding in value.lower().split(b",")]
        elif name == b"content-length" and not (_LENGTH.fullmatch(value) and int(value) <= max_bytes):
            raise Refused(Reason.BODY_TOO_LARGE)
    if typed or kinds not in ([], [_BYTES]):
        known = _JSON_OR_LINES if lines else _JSON
        if len(kinds) != 1 or not (kinds[0] in known or _media_type(kinds[0]) in known):
            raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE)
    codings = [coding for coding in codings if coding not in {b"", b"identity"}] if codings else codings
    if codings and codings not in _GZIP:
        raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE)
    return bool(codings)


def _media_type(value: bytes) -> bytes | None:
    """Return a media type without its parameters, of which a charset has to be UTF-8; None if it is another one."""
    kind, *parameters = value.lower().split(b";")
    for parameter in parameters:
        name, _, charset = parameter.partition(b"=")
        if name.strip() == b"charset" and charset.strip(b' \t"') not in _UTF_8:
            return None
    return kind.strip()
