"""Products on disk, tokenized once, so that a request names them by id."""
