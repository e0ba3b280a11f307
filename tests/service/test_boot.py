"""Tests of service/boot.py."""

from pathlib import Path

import pytest

from bundle import BundleError, read_bundle
from service import create_app
from service.boot import build_scorer, load_model
from service.process.cpus import usable_cpus
from service.scoring.cost import CostModel
from service.settings import Settings
from service.telemetry.metrics import Metrics


def test_workers_follow_the_cpu_quota(tiny_bundle: Path) -> None:
    """Without a number given, there is one worker, with a session, for each usable CPU; threads do not run yet."""
    settings = Settings(models_root=tiny_bundle, bundle="tiny")
    pool = build_scorer(settings, Metrics()).pool

    assert pool.size == usable_cpus() == len(load_model("tiny", settings).sessions)
    assert pool.alive == 0


def test_what_is_loaded_is_told(tiny_bundle: Path) -> None:
    """The model's name, version, bundle id, precision and device become one metric."""
    app = create_app(Settings(models_root=tiny_bundle, bundle="tiny", workers=1))
    labels = {
        "name": "tiny",
        "version": "1.0.0",
        "bundle": read_bundle(tiny_bundle, "tiny").id,
        "precision": "fp32",
        "device": "cpu",
        "role": "stable",
    }

    assert app.state.metrics.registry.get_sample_value("shelfrank_model_info", labels) == 1


def test_a_model_knows_from_the_start_what_a_run_costs(tiny_bundle: Path) -> None:
    """Loading times the engine: more tokens are not predicted to take less, and not by the guess of a new model."""
    model = load_model("tiny", Settings(models_root=tiny_bundle, bundle="tiny", workers=1))

    assert 0 < model.costs.seconds(48, 1) <= model.costs.seconds(48 * 64, 64)
    assert CostModel().seconds(480, 10) != model.costs.seconds(480, 10)


@pytest.mark.parametrize("name", ["absent", "../tiny", "tiny/", "", ".", "TINY", "tiny\x00"])
def test_another_name_is_refused(tiny_bundle: Path, name: str) -> None:
    """A name outside the grammar, or of no bundle, is refused by the bundle's own checks."""
    with pytest.raises(BundleError):
        load_model(name, Settings(models_root=tiny_bundle, workers=1))
