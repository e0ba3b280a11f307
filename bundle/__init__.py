"""The contract between training and serving: what a model bundle is, and how to read one.

Knows manifests, files, texts and scores; does not know how a model is trained or served.
Invariant: a `Bundle` in memory has passed every check of `store`.
"""

from bundle.errors import BundleError
from bundle.manifest import Manifest
from bundle.store import Bundle, read_bundle
from bundle.text import PairEncoder, Product

__all__ = ["Bundle", "BundleError", "Manifest", "PairEncoder", "Product", "read_bundle"]
