"""Tests of service/boot.py."""

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest

from bundle import BundleError, Product, read_bundle
from bundle.errors import UnexpectedBundle
from service import boot, create_app
from service.boot import build_scorer, load_model, root_of
from service.domain.ranking import Ranking
from service.engine.cost import CostModel
from service.errors import EngineError
from service.native.session import why_onnxruntime_is_faster
from service.process.cpus import usable_cpus
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.support import WAIT_S, terms
from tests.tiny import WORDS


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


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_the_log_says_why_an_engine_was_not_taken(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The line of a loaded bundle has the reason against the native engine: the setting, the bundle or the machine."""
    monkeypatch.setattr(logging.getLogger("shelfrank"), "propagate", True)
    layout = read_bundle(tiny_bundle, "tiny").manifest.graph().layout
    with caplog.at_level("INFO", "shelfrank"):
        load_model("tiny", Settings(models_root=tiny_bundle, workers=1, engine=engine))  # type: ignore[arg-type]
    (loaded,) = (record for record in caplog.records if record.message == "loaded")
    told = vars(loaded)["fields"]

    expected = (
        "engine is onnxruntime" if engine == "onnxruntime" else why_onnxruntime_is_faster(layout) or None
    )
    assert told["not_native"] == expected
    assert (told["engine"] == "native") == (expected is None)


def test_a_bundle_that_nobody_brought_is_the_packages(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's bundle is taken where `models_root` was not set and has none of that name, and nowhere else."""
    monkeypatch.setattr(boot, "SHIPPED", tiny_bundle)
    monkeypatch.chdir(tmp_path)
    assert (tiny_bundle, Path("models")) == (root_of("tiny", Settings()), root_of("absent", Settings()))
    assert root_of("tiny", Settings(models_root=Path("models"))) == Path("models")
    (tmp_path / "models" / "tiny").mkdir(parents=True)

    assert root_of("tiny", Settings()) == Path("models")


@pytest.mark.parametrize("name", ["absent", "../tiny", "tiny/", "", ".", "TINY", "tiny\x00"])
def test_another_name_is_refused(tiny_bundle: Path, name: str) -> None:
    """A name outside the grammar, or of no bundle, is refused by the bundle's own checks."""
    with pytest.raises(BundleError):
        load_model(name, Settings(models_root=tiny_bundle, workers=1))


def test_only_the_expected_bundle_is_served(tiny_bundle: Path) -> None:
    """With ids of bundles set, one of those is loaded, and another is refused with its own id."""
    found = read_bundle(tiny_bundle, "tiny").id
    listed = Settings(models_root=tiny_bundle, workers=1, bundle_ids=f"{'0' * 12},{found}")
    other = Settings(models_root=tiny_bundle, workers=1, bundle_ids="0" * 12)

    assert load_model("tiny", listed).bundle.id == found
    with pytest.raises(UnexpectedBundle, match=found):
        load_model("tiny", other)


def _ranked(root: Path, device: str) -> list[Ranking]:
    """Six lists at once, ranked by the engine of a device."""
    settings = Settings(models_root=root, bundle="tiny", device=device)  # type: ignore[arg-type]
    model, scorer = load_model("tiny", settings), build_scorer(settings, Metrics())
    products = [Product(title=" ".join(WORDS[at : at + at % 17])) for at in range(40)]

    async def main() -> list[Ranking]:
        lists = [scorer.rank(model, [(word, products)], terms()) for word in WORDS[14:20]]
        scorer.pool.start()
        return await asyncio.wait_for(asyncio.gather(*lists), WAIT_S)

    try:
        return asyncio.run(main())
    finally:
        scorer.pool.stop(WAIT_S)


@pytest.mark.usefixtures("as_gpu")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_ranks_as_the_cpu_does(tiny_bundle: Path, device: str) -> None:
    """Settings, shapes, queue and buffers together give every list its own logits, rows padded to fewer lengths."""
    expected, found = _ranked(tiny_bundle, "cpu"), _ranked(tiny_bundle, device)

    assert all(
        np.allclose(one.logits, other.logits, atol=1e-5) for one, other in zip(expected, found, strict=True)
    )
    assert len({ranking.logits.tobytes() for ranking in found}) == len(found)
    assert found[0].padding_tokens > expected[0].padding_tokens


@pytest.mark.usefixtures("as_gpu")
def test_one_session_serves_all_workers_of_a_gpu(tiny_bundle: Path) -> None:
    """A GPU has one worker unless more are asked for, and those share its one session."""
    alone, several = (
        load_model("tiny", Settings(models_root=tiny_bundle, bundle="tiny", device="cuda", workers=workers))
        for workers in (0, 3)
    )

    assert len(alone.sessions) == 1
    assert [several.sessions[0]] * 3 == several.sessions


def test_native_is_for_the_cpu_alone(tiny_bundle: Path) -> None:
    """Asking for the native engine on a GPU is a contradiction, and said so before a GPU is looked for."""
    settings = Settings(models_root=tiny_bundle, bundle="tiny", engine="native", device="cuda")

    with pytest.raises(EngineError, match="set device to cpu"):
        load_model("tiny", settings)


def test_the_shipped_bundle_is_served_by_the_engine_that_is_built() -> None:
    """The default bundle says where its weights are, and a model says what computes it and keeps scores apart by it."""
    root = Path(__file__).parents[2] / "models"
    native = load_model("tiny", Settings(models_root=root, bundle="tiny", workers=1))
    plain = load_model("tiny", Settings(models_root=root, bundle="tiny", workers=1, engine="onnxruntime"))

    assert plain.engine == "onnxruntime"
    assert native.engine == (
        "onnxruntime" if why_onnxruntime_is_faster(native.bundle.manifest.graph().layout) else "native"
    )
    assert (native.key == plain.key) == (native.engine == plain.engine)
