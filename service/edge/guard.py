"""Reads a request's body within its limits, and notices when the client has gone.

Knows ASGI messages and headers; does not know what a body means.
Invariant: no more than the limit is ever held, and nobody works for a client that has hung up.
The time to receive a request is kept by `service.edge.protocol`.
"""

import asyncio
import re
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar

from starlette.types import Receive

from service.errors import ClientGone, Reason, Refused

Result = TypeVar("Result")
Headers = Iterable[tuple[bytes, bytes]]
_JSON: Final = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE)
_JSON_OR_LINES: Final = re.compile(
    rb'application/(?:json|x-ndjson|ndjson|jsonl)[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE
)
_BYTES: Final = b"application/octet-stream"
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
    may also say that it is one JSON document a line.
    """
    _check_headers(headers, max_bytes, typed=typed, lines=lines)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise Refused(Reason.BODY_TOO_LARGE)
        if not message.get("more_body", False):
            return bytes(body)


async def unless_gone(work: Awaitable[Result], receive: Receive) -> Result:
    """Wait for a result; ClientGone, and the work cancelled, if the client hangs up first.

    `receive` has to be the server's own: a middleware in between may hide that the client has gone.
    """
    task = asyncio.current_task()
    assert task is not None, "nobody to interrupt"
    is_waiting = True

    def interrupt(gone: asyncio.Task[None]) -> None:
        if is_waiting and not gone.cancelled():
            task.cancel()

    gone = asyncio.ensure_future(_wait_until_gone(receive))
    gone.add_done_callback(interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            task.uncancel()
            raise ClientGone from None
        raise
    finally:
        is_waiting = False
        gone.cancel()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_headers(headers: Headers, max_bytes: int, *, typed: bool, lines: bool) -> None:
    kinds = []
    for name, value in headers:
        if name == b"content-type":
            kinds.append(value)
        elif name == b"content-encoding":
            raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE)
        elif name == b"content-length" and not (_LENGTH.fullmatch(value) and int(value) <= max_bytes):
            raise Refused(Reason.BODY_TOO_LARGE)
    if not typed and kinds in ([], [_BYTES]):
        return
    known = _JSON_OR_LINES if lines else _JSON
    if len(kinds) != 1 or not known.fullmatch(kinds[0].strip()):
        raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE)
