"""Tests of service/rollout/reload.py: real bundles, and a loader that fails as it is told to."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bundle.errors import HashMismatch, NotFound
from service.boot import load_model
from service.engine.model import LoadedModel
from service.errors import EngineError, Reason, Refused
from service.rollout.reload import LoadFailed, Rollout
from service.rollout.trial import Agreement
from service.rollout.versions import Version, Versions
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.support import WAIT_S, until
from tests.tiny import build_tiny

Load = Callable[[str], LoadedModel]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of one model in three versions; nobody may write to it."""
    root = tmp_path_factory.mktemp("reload")
    for number, name in enumerate(("one", "two", "three"), start=1):
        build_tiny(root, name, version=f"{number}", seed=number)
    return root


class Stage:
    """A service's models, on which bundle `one` is stable, and the metrics of what becomes of them."""

    def __init__(self, root: Path, load: Load | None = None) -> None:
        settings = Settings(models_root=root, workers=1)
        self.load = load or (lambda directory: load_model(directory, settings))
        self.metrics = Metrics()
        self.versions = Versions(Version(load_model("one", settings), "one"))
        self.rollout = Rollout(self.versions, self.metrics, self._load)

    def _load(self, directory: str) -> LoadedModel:
        return self.load(directory)  # whichever it is by then

    @property
    def stable(self) -> str:
        """The stable model's version."""
        return self.versions.stable.facts.version

    def count(self, name: str, **labels: str) -> float | None:
        """The value of one series."""
        return self.metrics.registry.get_sample_value(f"shelfrank_{name}", labels)


def run(work: Awaitable[None]) -> None:
    """Finish some work on an event loop."""

    async def bounded() -> None:
        await asyncio.wait_for(work, WAIT_S)

    asyncio.run(bounded())


def step(call: Callable[[], None]) -> None:
    """Make one of the changes that need no loading, on an event loop."""

    async def work() -> None:
        call()

    run(work())


def test_a_reload_replaces_the_stable_model(root: Path) -> None:
    """Another bundle answers after a reload; without a name it is what is now in the directory of the last one."""
    stage = Stage(root)
    asked: list[str] = []
    load = stage.load
    stage.load = lambda directory: (asked.append(directory), load(directory))[1]
    run(stage.rollout.reload("two"))
    run(stage.rollout.reload())

    assert (["two", "two"], "2") == (asked, stage.stable)
    assert (2, 0) == (
        stage.count("reloads_total", result="done"),
        stage.count("reloads_total", result="failed"),
    )


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (HashMismatch("model.onnx has other content"), "hash_mismatch", 422),
        (NotFound("there is no bundle two"), "not_found", 404),
        (EngineError("no int8 graph"), "engine", 422),
        (MemoryError("secret"), "load_failed", 500),
        (RuntimeError("secret"), "load_failed", 500),
    ],
)
def test_whatever_fails_changes_nothing(root: Path, error: Exception, code: str, status: int) -> None:
    """Any error while loading leaves all models in their roles, is counted, and comes with a code of the closed set."""

    def fail(directory: str) -> LoadedModel:  # noqa: ARG001 - as it is called
        raise error

    stage = Stage(root, fail)
    before = stage.versions.stable
    for work in (lambda: stage.rollout.reload("two"), lambda: stage.rollout.admit("canary", "two", 0.5)):
        with pytest.raises(LoadFailed) as failed:
            run(work())
        assert (code, status) == (failed.value.code, failed.value.status)
        assert "secret" not in str(failed.value)

    assert stage.versions.stable is before
    assert not stage.versions.candidates
    assert stage.count("reloads_total", result="failed") == 2


def test_a_model_that_is_served_already_is_refused(root: Path) -> None:
    """The stable model is no canary, and the canary becomes stable by a promotion, not by a reload."""
    stage = Stage(root)
    run(stage.rollout.admit("canary", "two", 0.5))
    for work in (lambda: stage.rollout.admit("shadow", "one", 0.5), lambda: stage.rollout.reload("two")):
        with pytest.raises(LoadFailed) as failed:
            run(work())
        assert ("already_served", 409) == (failed.value.code, failed.value.status)

    assert (stage.stable, ["canary"]) == ("1", list(stage.versions.candidates))


def test_newcomers_come_and_go(root: Path) -> None:
    """Canary and shadow stand side by side; each can be replaced, promoted or dismissed, and no other one then."""
    stage = Stage(root)
    run(stage.rollout.admit("canary", "two", 0.5))
    run(stage.rollout.admit("shadow", "three", 1.0))
    step(stage.rollout.promote)
    assert (stage.stable, ["shadow"]) == ("2", list(stage.versions.candidates))
    run(stage.rollout.reload())
    assert stage.stable == "2"
    step(lambda: stage.rollout.dismiss("shadow"))

    assert not stage.versions.candidates
    for call in (
        stage.rollout.promote,
        lambda: stage.rollout.dismiss("canary"),
        lambda: stage.rollout.dismiss("shadow"),
    ):
        with pytest.raises(Refused) as refused:
            step(call)
        assert refused.value.reason is Reason.NO_CANDIDATE


def test_an_abort_takes_the_canary_out(root: Path) -> None:
    """The stable model answers all again, the abort is counted, and the agreement's series are gone."""
    stage = Stage(root)
    run(stage.rollout.admit("canary", "two", 1.0))
    stage.versions.candidates["canary"].trial.compared(Agreement(0.25, -0.5, 0.5))
    stage.metrics.rollout.set_agreement("canary", overlap_at_10=0.25, kendall_tau=-0.5, score_difference=0.5)
    step(lambda: stage.rollout.abort("disagreeing"))

    assert stage.versions.choose(None, "mug") is stage.versions.stable
    assert stage.count("canary_aborts_total") == 1
    assert stage.count("canary_kendall_tau", role="canary") is None


def test_a_reload_forgets_what_was_compared_with_the_old_model(root: Path) -> None:
    """After another stable model the gauges tell of no newcomer until new lists were compared."""
    stage = Stage(root)
    run(stage.rollout.admit("shadow", "two", 1.0))
    stage.metrics.rollout.set_agreement("shadow", overlap_at_10=1.0, kendall_tau=1.0, score_difference=0.0)
    run(stage.rollout.reload("three"))

    assert stage.count("canary_kendall_tau", role="shadow") is None
    assert stage.versions.candidates["shadow"].trial.lists == 0


def test_one_bundle_is_loaded_at_a_time(root: Path) -> None:
    """A second load begins when the first one has ended, and the loop is free meanwhile."""
    gate, loading, most = threading.Event(), [0], [0]
    stage = Stage(root)
    load = stage.load

    def slowly(directory: str) -> LoadedModel:
        loading[0] += 1
        most[0] = max(most[0], loading[0])
        assert gate.wait(WAIT_S)
        model = load(directory)
        loading[0] -= 1
        return model

    async def work() -> None:
        stage.load = slowly
        both = asyncio.gather(stage.rollout.reload("two"), stage.rollout.admit("canary", "three", 0.5))
        await until(lambda: loading[0] > 0)
        assert stage.rollout.is_busy
        assert stage.stable == "1"
        gate.set()
        await both

    run(work())

    assert (1, "2", False) == (most[0], stage.stable, stage.rollout.is_busy)
    assert list(stage.versions.candidates) == ["canary"]


def test_wanting_a_reload_often_is_wanting_it_once(root: Path) -> None:
    """Signals that come together make one reload, one that comes while it runs another, and a failure ends nothing."""
    asked: list[str] = []
    stage = Stage(root)
    load, broken = stage.load, [True]

    def sometimes(directory: str) -> LoadedModel:
        asked.append(directory)
        if broken[0]:
            raise NotFound("there is no bundle one")
        return load(directory)

    async def work() -> None:
        stage.load = sometimes
        watching = asyncio.create_task(stage.rollout.watch())
        for _ in range(5):
            stage.rollout.request_reload()
        await until(lambda: stage.count("reloads_total", result="failed") == 1)
        broken[0] = False
        stage.rollout.request_reload()
        await until(lambda: stage.count("reloads_total", result="done") == 1)
        watching.cancel()

    run(work())

    assert asked == ["one", "one"]


def test_the_memory_of_a_replaced_model_goes_back(root: Path) -> None:
    """After each reload the runtime's session of the model before is gone."""
    stage = Stage(root)
    sessions = []
    for directory in ("two", "three", "one"):
        session = stage.versions.stable.model.sessions[0]
        sessions.append(weakref.ref(session._session))  # type: ignore[attr-defined]
        del session
        run(stage.rollout.reload(directory))
    gc.collect()

    assert [None, None, None] == [session() for session in sessions]
