"""Fixtures of the service's tests: the tiny bundle served in this process, and by a real one.

Knows how long each lives; does not know the tests.
Invariant: no test sees what another one changed, as nothing here can be changed by a request.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from service import create_app
from service.engine import cuda
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


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Open every GPU session on the CPU, with its buffers in main memory; tell what was asked for."""
    asked: list[dict[str, Any]] = []
    real = ort.InferenceSession

    def spy(model: bytes, options: ort.SessionOptions, **told: Any) -> ort.InferenceSession:
        asked.append(told)
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", spy)
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: [cuda.TENSORRT, cuda.CUDA, "CPUExecutionProvider"]
    )
    return asked


@pytest.fixture
def as_gpu(stand_in: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The same, and the CPU counts as the GPU that was asked for."""
    monkeypatch.setattr(cuda, "_PROVIDERS", dict.fromkeys(("cuda", "tensorrt"), "CPUExecutionProvider"))
    monkeypatch.setattr(
        cuda,
        "ON",
        {"cuda": cuda.Placement("cpu", captures=True), "tensorrt": cuda.Placement("cpu", captures=False)},
    )
    return stand_in
