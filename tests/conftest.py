"""What all tests share: one tiny real bundle, and property tests that run the same way every time.

Knows how to build the bundle once; does not know the tests.
Invariant: nothing here needs a network, a GPU or files from outside the repository.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

import service  # noqa: F401 - first: it keeps the runtime, which tests.tiny imports, from reporting usage
from tests.tiny import build_tiny

os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not there fails at once, not after retries
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads cost more than they give, and sums keep one order

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the root folder that holds the bundle "tiny"; nobody may write to it."""
    root = tmp_path_factory.mktemp("bundles")
    build_tiny(root)
    return root
