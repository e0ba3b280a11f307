"""A cross-encoder that somebody else trained, as a bundle: `python -m training import`."""
