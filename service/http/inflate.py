"""PURE. Unpacks the body of a request that came as gzip.

Knows zlib; does not know HTTP or what a body means.
Invariant: no more than the limit is ever unpacked, however much the bytes stand for.
"""

import zlib
from typing import Final

from service.errors import Reason, Refused

_GZIP: Final = 16 + zlib.MAX_WBITS  # zlib's way to ask for the header and the checksum of gzip


def inflate(packed: bytes, max_bytes: int) -> bytes:
    """Return what one gzip member holds; Refused if that is more than `max_bytes`, or if it is broken or not alone."""
    stream = zlib.decompressobj(_GZIP)
    try:
        body = stream.decompress(packed, max_bytes + 1)
    except zlib.error:
        raise Refused(Reason.MALFORMED_GZIP) from None
    if len(body) > max_bytes:
        raise Refused(Reason.BODY_TOO_LARGE)
    if not stream.eof or stream.unused_data:
        raise Refused(Reason.MALFORMED_GZIP)
    return body
