"""Tests of bundle/layout.py, on the layout of the bundle that is shipped."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bundle import read_bundle
from bundle.layout import EncoderLayout, TensorLocation
from bundle.manifest import dump_manifest, parse_manifest
from tests.service.support import ROOT

SHIPPED = read_bundle(ROOT / "models", "tiny")
FILE = SHIPPED.files[SHIPPED.manifest.graph().file]


def _told() -> dict[str, Any]:
    layout = SHIPPED.manifest.graph().layout
    assert layout is not None
    return layout.model_dump()


def test_sizes_follow_from_the_tensors() -> None:
    """Hidden and inner size are those of the matrices, and reading a place gives its tensor."""
    layout = EncoderLayout(**_told())
    words = layout.tensors["embeddings.words"].read(FILE)

    assert (layout.layers, layout.hidden, layout.inner) == (2, 128, 512)
    assert words.shape == (SHIPPED.manifest.text.vocabulary, 128)
    assert words.dtype == np.int8
    assert 0 < float(layout.tensors["layers.1.query.step"].read(FILE)) < 1


def test_a_manifest_keeps_its_layout() -> None:
    """What was parsed is written as it was."""
    raw = dump_manifest(SHIPPED.manifest)

    assert parse_manifest(raw).graph().layout == SHIPPED.manifest.graph().layout
    assert b'"layout":{"activation":"gelu"' in raw


def test_a_place_past_the_end_is_refused() -> None:
    """A tensor that would lie beyond the file is no tensor."""
    with pytest.raises(ValueError, match="buffer"):
        TensorLocation(offset=len(FILE) - 4, dtype="float32", shape=(2,)).read(FILE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layers.0.key.weight", (128, 64)),
        ("layers.0.output_norm.bias", (64,)),
        ("embeddings.words", (30_522, 100)),
        ("embeddings.words", (30_522,)),
        ("embeddings.positions", (512, 127)),
        ("layers.0.expand.weight", (0, 0)),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...]) -> None:
    """Every shape follows from the sizes, and a layout with another one does not parse."""
    told = _told()
    told["tensors"][name]["shape"] = shape

    with pytest.raises(ValidationError):
        EncoderLayout(**told)


@pytest.mark.parametrize("name", ["embeddings.words", "layers.1.contract.scale", "classifier.weight"])
def test_a_tensor_that_is_absent_is_named(name: str) -> None:
    """What an encoder cannot do without is asked for by name."""
    told = _told()
    del told["tensors"][name]

    with pytest.raises(ValidationError, match=name):
        EncoderLayout(**told)


def test_what_no_encoder_has_is_refused() -> None:
    """Another tensor, another type, or heads that do not divide the hidden size."""
    strange, other, heads = _told(), _told(), _told()
    strange["tensors"]["layers.2.key.weight"] = strange["tensors"]["layers.1.key.weight"]
    other["tensors"]["layers.1.key.scale"]["dtype"] = "int8"
    heads["heads"] = 3

    for told in (strange, other, heads):
        with pytest.raises(ValidationError):
            EncoderLayout(**told)


@pytest.mark.parametrize("name", ["embeddings.types", "layers.0.expand.inverse"])
def test_some_tensors_are_optional(name: str) -> None:
    """An architecture may have no token types, an input may need no factors."""
    told = _told()
    del told["tensors"][name]

    assert name not in EncoderLayout(**told).tensors
