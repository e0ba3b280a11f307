"""Fixtures of the service's tests: the tiny bundle served in this process, and by a real one.

Knows how long each lives; does not know the tests.
Invariant: no test sees what another one changed, as nothing here can be changed by a request.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import create_app
from service.settings import Settings
from tests.service.support import Process, Served, serving


@pytest.fixture(scope="session")
def served(tiny_bundle: Path) -> Iterator[Served]:
    """The tiny bundle behind an application in this process."""
    with Served(create_app(Settings(models_root=tiny_bundle, bundle="tiny", workers=2))) as application:
        yield application


@pytest.fixture(scope="session")
def process(tiny_bundle: Path) -> Iterator[Process]:
    """The tiny bundle behind a real process."""
    with serving(tiny_bundle, "--workers", "2") as running:
        yield running
