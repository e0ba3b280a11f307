"""Tests of service/boot.py."""

from pathlib import Path

import pytest

from bundle import BundleError
from service.boot import load_scorer
from service.cpus import usable_cpus
from service.metrics import Metrics
from service.settings import Settings


def test_workers_follow_the_cpu_quota(tiny_bundle: Path) -> None:
    """Without a number given, there is one worker for each usable CPU; threads do not run yet."""
    scorer = load_scorer(Settings(models_root=tiny_bundle, bundle="tiny"), Metrics())

    assert scorer.pool.size == usable_cpus()
    assert scorer.pool.alive == 0


def test_what_is_loaded_is_told(tiny_bundle: Path) -> None:
    """The model's name, version, bundle id, precision and device become one metric."""
    metrics = Metrics()
    scorer = load_scorer(Settings(models_root=tiny_bundle, bundle="tiny", workers=1), metrics)
    labels = {
        "name": "tiny",
        "version": "1.0.0",
        "bundle": scorer.bundle.id,
        "precision": "fp32",
        "device": "cpu",
    }

    assert metrics.registry.get_sample_value("shelfrank_model_info", labels) == 1


@pytest.mark.parametrize("name", ["absent", "../tiny", "tiny/", "", ".", "TINY", "tiny\x00"])
def test_another_name_is_refused(tiny_bundle: Path, name: str) -> None:
    """A name outside the grammar, or of no bundle, is refused by the bundle's own checks."""
    with pytest.raises(BundleError):
        load_scorer(Settings(models_root=tiny_bundle, bundle=name, workers=1), Metrics())
