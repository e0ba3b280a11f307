"""Tests of service/http/guard.py."""

import asyncio
import gzip
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ClientDisconnected, Reason, Refused
from service.http.guard import cancel_on_disconnect, read_body

JSON = [(b"content-type", b"application/json")]


class Client:
    """Sends messages one by one and counts how many were asked for."""

    def __init__(self, messages: Iterable[dict[str, Any]]) -> None:
        self.messages = iter(messages)
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        """Give the next message, or wait for ever."""
        self.asked += 1
        message = next(self.messages, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message


def _part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def _read(client: Client, headers: list[tuple[bytes, bytes]] = JSON, limit: int = 10) -> bytes:
    return asyncio.run(asyncio.wait_for(read_body(headers, client.receive, limit), 10))


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20))
def test_a_body_is_its_parts_or_refused(parts: list[bytes]) -> None:
    """Up to the limit the body is put together; past it, it is refused without reading on."""
    whole = b"".join(parts)
    client = Client([*(_part(part, more=True) for part in parts), _part(b"", more=False)])

    if len(whole) <= 10:
        assert _read(client) == whole
    else:
        with pytest.raises(Refused) as caught:
            _read(client)
        assert caught.value.reason is Reason.BODY_TOO_LARGE
        assert sum(map(len, parts[: client.asked - 1])) <= 10


@pytest.mark.parametrize("length", [b"11", b"999999999999999999", b"9" * 4_000, b"-1", b"1e1", b"", b" 5"])
def test_a_declared_length_is_refused_unread(length: bytes) -> None:
    """A length over the limit, or no number at all, is refused before anything is read."""
    client = Client([])

    with pytest.raises(Refused) as caught:
        _read(client, [*JSON, (b"content-length", length)])
    assert caught.value.reason is Reason.BODY_TOO_LARGE
    assert client.asked == 0


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json;",
        b"application/json ; ",
        b"application/json; charset=utf-8",
        b"application/json;charset=utf8",
        b'application/json;charset="UTF-8"',
        b"application/json; profile=x; Charset=Utf-8",
    ],
)
def test_json_is_taken(value: bytes) -> None:
    """application/json is taken, with or without a charset of UTF-8 or other parameters, in any case."""
    assert _read(Client([_part(b"{}", more=False)]), [(b"content-type", value)]) == b"{}"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"application/json; charset=latin-1")],
        [(b"content-type", b"application/json; charset=utf-8; charset=latin-1")],
        [(b"content-type", b"application/json, text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [*JSON, *JSON],
        [*JSON, (b"content-encoding", b"br")],
        [*JSON, (b"content-encoding", b"deflate")],
        [*JSON, (b"content-encoding", b"gzip, gzip")],
        [*JSON, (b"content-encoding", b"gzip"), (b"content-encoding", b"zstd")],
    ],
)
def test_anything_else_is_refused_unread(headers: list[tuple[bytes, bytes]]) -> None:
    """Another, no or two content types, and a content encoding that is not gzip, are refused before anything is read."""
    client = Client([])

    with pytest.raises(Refused) as caught:
        _read(client, headers)
    assert caught.value.reason is Reason.UNSUPPORTED_MEDIA_TYPE
    assert client.asked == 0


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"x-gzip", b"identity, gzip"])
def test_gzip_is_unpacked(coding: bytes) -> None:
    """A packed body is unpacked within the limit, which holds for the packed bytes too."""
    headers = [*JSON, (b"content-encoding", coding)]
    packed = gzip.compress(b" " * 1_000)

    assert _read(Client([_part(packed, more=False)]), headers, 1_000) == b" " * 1_000
    for limit in (999, len(packed) - 1):
        with pytest.raises(Refused) as caught:
            _read(Client([_part(packed, more=False)]), headers, limit)
        assert caught.value.reason is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("coding", [b"identity", b"", b"Identity,"])
def test_identity_is_no_coding(coding: bytes) -> None:
    """A body that says that it is not packed is read as it is."""
    assert _read(Client([_part(b"{}", more=False)]), [*JSON, (b"content-encoding", coding)]) == b"{}"


@pytest.mark.parametrize("coding", [b"identity", b"gzip"])
def test_a_byte_order_mark_is_left_out(coding: bytes) -> None:
    """One mark before a body is no part of it, packed or not; a second one is."""
    body = b"\xef\xbb\xbf\xef\xbb\xbf{}"
    sent = gzip.compress(body) if coding == b"gzip" else body

    assert _read(Client([_part(sent, more=False)]), [*JSON, (b"content-encoding", coding)], 50) == body[3:]


def test_a_client_that_leaves_while_sending_is_gone() -> None:
    """A connection that ends inside a body raises ClientGone."""
    with pytest.raises(ClientDisconnected):
        _read(Client([_part(b"{", more=True), {"type": "http.disconnect"}]))


def _wait(client: Client, *, settle: bool) -> tuple[object, bool]:
    """Wait for a future that is settled or not; return the outcome and whether the future was cancelled."""

    async def main() -> tuple[object, bool]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if settle:
            asyncio.get_running_loop().call_soon(future.set_result, "ranked")
        try:
            return await asyncio.wait_for(
                cancel_on_disconnect(future, client.receive), 10
            ), future.cancelled()
        except ClientDisconnected:
            return ClientDisconnected, future.cancelled()

    return asyncio.run(main())


def test_a_result_is_returned_while_the_client_waits() -> None:
    """As long as the client is there, the result is returned."""
    assert _wait(Client([]), settle=True) == ("ranked", False)


def test_a_client_that_leaves_cancels_the_work() -> None:
    """If the client hangs up first, the future is cancelled."""
    assert _wait(Client([{"type": "http.disconnect"}]), settle=False) == (ClientDisconnected, True)
