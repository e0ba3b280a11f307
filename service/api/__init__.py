"""Our own API: bytes to a request, strict or lenient; a ranking to the bytes of an answer."""
