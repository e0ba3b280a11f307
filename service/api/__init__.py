"""Our own API: bytes to a request, strictly, or with what is odd in it mended; a ranking to the bytes of an answer."""
