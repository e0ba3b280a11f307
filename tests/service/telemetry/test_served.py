"""Tests of service/telemetry/served.py."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bundle import Bundle
from service.telemetry.drift import Drift
from service.telemetry.meters import ROLES
from service.telemetry.served import Served, ServedModels
from tests.service.telemetry.test_drift import manifest
from tests.tiny import tiny_files, tiny_manifest

FILES = tiny_files()
WHOSE = {"role": "stable", "model": "tiny@1.0.0"}


def served(role: str, bundle: str = "0", *, referenced: bool = True) -> Served:
    """The tiny bundle in a role."""
    told = manifest() if referenced else tiny_manifest(FILES)
    told = told.model_copy(update={"version": f"1.0.{bundle}"})
    return Served(role, Bundle(told, FILES, bundle), "fp32", "cpu", Drift(told))


@pytest.fixture
def models() -> ServedModels:
    """Nothing served yet."""
    return ServedModels()


@pytest.fixture
def registry(models: ServedModels) -> CollectorRegistry:
    """A registry that scrapes it."""
    registry = CollectorRegistry()
    registry.register(models)
    return registry


def test_every_role_is_named(models: ServedModels, registry: CollectorRegistry) -> None:
    """A bundle in each role has their name, version, id, precision, device and role."""
    models.show([served(role, f"{place}") for place, role in enumerate(ROLES)])

    for place, role in enumerate(ROLES):
        labels = {
            "name": "tiny", "version": f"1.0.{place}", "bundle": f"{place}", "precision": "fp32", "device": "cpu",
            "role": role,
        }  # fmt: skip
        assert registry.get_sample_value("shelfrank_model_info", labels) == 1


def test_a_model_that_has_gone_leaves_no_series(models: ServedModels, registry: CollectorRegistry) -> None:
    """After a swap only the new bundle is told of."""
    models.show([served("stable", "old"), served("canary", "new")])
    models.show([served("stable", "new")])
    text = generate_latest(registry).decode()

    assert 'bundle="old"' not in text
    assert 'role="canary"' not in text
    assert text.count("shelfrank_model_info{") == 1


def test_drift_is_told_by_role(models: ServedModels, registry: CollectorRegistry) -> None:
    """Bins, classes and rates of traffic stand beside those of the reference; the index is told when it is known."""
    stable = served("stable")
    models.show([stable])
    assert registry.get_sample_value("shelfrank_drift_psi", WHOSE) is None
    stable.drift.add(np.full(5_000, -9.0, np.float32), rows=4, truncated=1, tokens=10, unknown=1)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"shelfrank_drift_{name}", WHOSE | labels)

    assert value("documents") == 5_000
    assert (value("psi") or 0) > 0.25
    assert value("class_distance") == pytest.approx(0.8)
    assert [value("scores", of="traffic", up_to=up_to) for up_to in ("0.1", "1")] == [5_000, 0]
    assert [value("scores", of="reference", up_to=up_to) for up_to in ("0.1", "1")] == [500, 500]
    assert value("classes", of="traffic", label="irrelevant") == 5_000
    assert value("classes", of="reference", label="exact") == 2_000
    assert [value("truncated_ratio", of=of) for of in ("traffic", "reference")] == [0.25, 0.25]
    assert [value("unknown_ratio", of=of) for of in ("traffic", "reference")] == [0.1, 0.01]


def test_a_bundle_without_a_reference_has_none(models: ServedModels, registry: CollectorRegistry) -> None:
    """No series pretends to be a reference, and no value is NaN."""
    models.show([served("stable", referenced=False)])
    text = generate_latest(registry).decode()

    assert 'of="traffic"' in text
    assert 'of="reference"' not in text
    assert "NaN" not in text


def test_two_models_that_are_asked_for_by_name_are_told_apart(
    models: ServedModels, registry: CollectorRegistry
) -> None:
    """Several models may be there for those who name them, each with its own drift."""
    both = [served("named", "1"), served("named", "2")]
    both[1].drift.add(np.zeros(3, np.float32))
    models.show([served("stable", "0"), *both])

    for bundle, documents in (("1", 0), ("2", 3)):
        labels = {"role": "named", "model": f"tiny@1.0.{bundle}"}
        assert registry.get_sample_value("shelfrank_drift_documents", labels) == documents


def test_a_model_in_two_roles_is_a_bug(models: ServedModels) -> None:
    """A model is told of once, and its role has to be one of the closed set."""
    with pytest.raises(AssertionError, match="two roles"):
        models.show([served("stable"), served("canary")])
    with pytest.raises(AssertionError, match="nobody knows"):
        models.show([served("other")])
