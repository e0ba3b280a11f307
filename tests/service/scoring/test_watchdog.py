"""Tests of service/scoring/watchdog.py, on workers and a clock of our own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.process.lifecycle import Lifecycle, WorkerHealth
from service.scoring.watchdog import STOPPED_S, Watchdog, check_workers, count_stuck
from service.telemetry.metrics import Metrics
from tests.service.support import FakeSession, Served, exchange, fake_app, until


@dataclass
class Workers:
    """Two threads as a watchdog sees them, and the time."""

    size: int = 2
    alive: int = 2
    since_s: list[float | None] = field(default_factory=lambda: [None, None])
    now_s: float = 1_000.0

    def busy_since(self) -> list[float | None]:
        """As the pool tells it."""
        return self.since_s


def _watchdog(workers: Workers, metrics: Metrics | None = None) -> Watchdog:
    return Watchdog(workers, 10.0, metrics or Metrics(), lambda: workers.now_s)


@pytest.mark.parametrize(
    ("since_s", "stuck"),
    [([], 0), ([None, None], 0), ([90.0, None], 0), ([89.9, None], 1), ([0.0, 89.0, 99.0], 2), ([101.0], 0)],
)
def test_a_thread_is_stuck_past_the_limit(since_s: list[float | None], stuck: int) -> None:
    """Idle threads, and those within the limit, are well."""
    assert stuck == count_stuck(since_s, now_s=100.0, limit_s=10.0)


@pytest.mark.parametrize(
    ("alive", "since_s", "worker_health"),
    [
        (2, [None, 999.0], WorkerHealth.HEALTHY),
        (1, [None, None], WorkerHealth.DEAD),
        (2, [None, 900.0], WorkerHealth.STUCK),
        (1, [None, 900.0], WorkerHealth.STUCK),
    ],
)
def test_the_worse_verdict_counts(
    alive: int, since_s: list[float | None], worker_health: WorkerHealth
) -> None:
    """A stuck thread weighs more than a dead one."""
    assert worker_health is check_workers(Workers(alive=alive, since_s=since_s), 1_000.0, 10.0)


def test_health_follows_at_once() -> None:
    """Readiness and liveness are those of the moment they are asked for, before any look of the watchdog."""
    workers = Workers()
    watchdog = _watchdog(workers)
    lifecycle = Lifecycle(lambda: watchdog.worker_health)
    lifecycle.started()
    told = []
    for alive, since_s in ((2, None), (1, None), (2, 900.0), (2, 999.0)):
        workers.alive, workers.since_s = alive, [since_s, None]
        told.append((lifecycle.is_ready, lifecycle.is_alive))

    assert [(True, True), (False, True), (False, False), (True, True)] == told


def test_a_hang_is_told_once() -> None:
    """However often the watchdog looks, one hang is one call; after it was well again, the next is another."""
    workers, calls = Workers(), []
    watchdog = _watchdog(workers)
    for since_s in (999.0, 900.0, 900.0, None, 900.0):
        workers.since_s = [since_s, None]
        watchdog.look(0.0, lambda: calls.append(1))

    assert len(calls) == 2


def test_a_stopped_process_judges_nobody() -> None:
    """After the process itself was stopped, a thread gets one look's time to go on."""
    workers, calls = Workers(since_s=[900.0, None]), []
    watchdog = _watchdog(workers)
    watchdog.look(STOPPED_S + 1, lambda: calls.append(1))
    assert calls == []
    watchdog.look(0.0, lambda: calls.append(1))
    assert calls == [1]


def test_a_death_is_no_hang() -> None:
    """A dead thread turns readiness red, but does not end the process."""
    workers, calls = Workers(alive=1), []
    _watchdog(workers).look(0.0, lambda: calls.append(1))

    assert calls == []


def test_lag_and_hangs_are_measured() -> None:
    """The gauges show the longest lag of the last looks, and how many threads hang now."""
    workers, metrics = Workers(since_s=[900.0, 900.0]), Metrics()
    watchdog = _watchdog(workers, metrics)

    def gauge(name: str) -> float | None:
        return metrics.registry.get_sample_value(name)

    for lag_s in (0.1, 0.7, -0.1, 0.2):
        watchdog.look(lag_s, lambda: None)
    assert (0.7, 2) == (gauge("shelfrank_loop_lag_seconds"), gauge("shelfrank_stuck_workers"))
    for _ in range(100):
        watchdog.look(0.05, lambda: None)
    assert gauge("shelfrank_loop_lag_seconds") == 0.05


def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task sees a hang without being asked, and measures a loop that stood still."""
    monkeypatch.setattr("service.scoring.watchdog.LOOK_EVERY_S", 0.001)
    workers = Workers(since_s=[900.0, None])
    watchdog = _watchdog(workers)

    async def run() -> None:
        seen = asyncio.Event()
        task = asyncio.create_task(watchdog.watch(seen.set))
        await asyncio.wait_for(seen.wait(), 10)
        task.cancel()

    asyncio.run(run())


def _health(served: Served) -> list[int]:
    admin = served.app.state.admin
    return [
        served.run(exchange(app, "GET", path)).status
        for app in (served.app, admin)
        for path in ("/livez", "/readyz")
    ]


@pytest.mark.parametrize("code", [4, 0])
def test_a_hang_turns_health_red_on_both_ports(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    """In the application, a worker that hangs turns /livez and /readyz red; whether it leaves is a setting."""
    app = fake_app(tiny_bundle, FakeSession(), watchdog_s=0.5, watchdog_exit=code == 4)
    since: list[Callable[[], list[float | None]]] = [lambda: [None]]
    monkeypatch.setattr("service.scoring.worker.WorkerPool.busy_since", lambda _: since[0]())

    told = []
    monkeypatch.setattr("service.scoring.watchdog.event", lambda name, *_, **__: told.append(name))
    monkeypatch.setattr("service.scoring.watchdog.LOOK_EVERY_S", 0.01)
    with Served(app) as served:
        assert [200] * 4 == _health(served)
        since[0] = lambda: [0.0]
        assert [503] * 4 == _health(served)
        served.run(until(lambda: "worker_stuck" in told))
        assert app.state.lifecycle.exit_code == code
