"""Tests of service/processes.py: real processes, two of them, and what becomes of one that is killed."""

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import pytest

from service.processes import LONGEST_PAUSE_S, LOOK_EVERY_S, child_settings, pause_s
from service.settings import Settings
from tests.service.support import WAIT_S, Process, ask, serving, start

BODY = json.dumps({"query": "red shoes", "documents": ["coffee mug", "red shoes"]})
FLAGS = ("--processes", "2", "--workers", "1")
LOST = "lost"


def _scrape(process: Process) -> dict[str, float]:
    text = ask(process.admin_port, "GET", "/metrics")[1].decode()
    return {
        name: float(value)
        for name, value in re.findall(r"^(shelfrank\S+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    }


RANKED = 'shelfrank_requests_total{route="/v1/rerank",status="2xx"}'


def _events(process: Process, name: str) -> list[dict[str, Any]]:
    return [line for line in list(process.lines) if line["event"] == name]


def _await(condition: Any) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def _both_serve(process: Process) -> bool:
    return _scrape(process)["shelfrank_processes"] == 2


class Load:
    """Clients that ask one request after the other, each on a connection of its own, and count what came back."""

    def __init__(self, port: int, clients: int) -> None:
        self.counts: Counter[int | str] = Counter()
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status: int | str = ask(self._port, "POST", "/v1/rerank", BODY)[0]
            except (OSError, http.client.HTTPException):
                status = LOST
            self.counts[status] += 1
            time.sleep(0.005)


def test_pauses_grow_to_a_bound() -> None:
    """The first start waits for nothing, later ones ever longer, none longer than the bound."""
    pauses = [pause_s(failures) for failures in range(2_000)]

    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


@pytest.mark.parametrize(
    ("processes", "workers", "device", "expected"),
    [(2, 0, "cpu", 4), (3, 0, "cpu", 2), (16, 0, "cpu", 1), (2, 3, "cpu", 3), (2, 0, "cuda", 0)],
)
def test_processes_share_the_cpus(processes: int, workers: int, device: str, expected: int) -> None:
    """Workers that are counted by CPUs are divided; a number that was set is each process's own."""
    settings = Settings(processes=processes, workers=workers, device=device)  # type: ignore[arg-type]

    assert child_settings(settings, cpus=8).workers == expected


def test_one_of_two_may_be_killed(tiny_bundle: Path) -> None:
    """Of a process that is killed under load only what was in flight is lost; it is replaced, and the sums hold."""
    with serving(tiny_bundle, *FLAGS) as running:
        _await(lambda: _both_serve(running))
        pids = [line["pid"] for line in _events(running, "process_ready")]
        with Load(running.port, clients=4) as load:
            _await(lambda: load.counts[200] > 100)
            before = _scrape(running)[RANKED]
            os.kill(pids[0], signal.SIGKILL)
            killed_s = time.monotonic()
            sums = [before]
            while len(_events(running, "process_ready")) < 3:
                sums.append(_scrape(running)[RANKED])
                time.sleep(0.02)
            back_s = time.monotonic() - killed_s
            _await(lambda: load.counts[200] > before + 100)
        time.sleep(LOOK_EVERY_S)
        told = _scrape(running)

        assert set(load.counts) <= {200, LOST}
        assert load.counts[LOST] <= 4
        assert sums == sorted(sums)
        # what the killed process had counted since it was last asked is all that may be missing
        assert load.counts[200] - 2 * LOOK_EVERY_S * 4 / 0.005 <= told[RANKED] <= load.counts[200]
        assert told[RANKED] > before
        assert told["shelfrank_process_restarts_total"] == 1
        assert told["shelfrank_processes"] == told["shelfrank_workers"] == 2
        assert back_s < 5 + 5  # and loading, on a machine that is busy with tests
        assert running.stop() == 0
    assert [{"code": -signal.SIGKILL}] == [
        {"code": line["code"]} for line in _events(running, "process_ended")
    ]


def test_a_drain_loses_nothing(tiny_bundle: Path) -> None:
    """SIGTERM to the parent under load: readiness first, every request answered that was taken, exit code 0."""
    with serving(tiny_bundle, *FLAGS, "--drain-delay-s", "1") as running:
        _await(lambda: _both_serve(running))
        with Load(running.port, clients=4) as load:
            _await(lambda: load.counts[200] > 20)
            running.popen.send_signal(signal.SIGTERM)
            _await(lambda: ask(running.admin_port, "GET", "/readyz")[0] == 503)
            time.sleep(0.3)
        counted = _scrape(running)[RANKED]

        assert set(load.counts) == {200}
        assert counted == load.counts[200]
        assert ask(running.admin_port, "GET", "/livez")[0] == 200
        assert running.popen.wait(WAIT_S) == 0
    assert _events(running, "process_ended") == []


def test_ctrl_c_reaches_all_at_once(tiny_bundle: Path) -> None:
    """A terminal signals every process of its group, and the parent passes it on: still exit code 0, soon."""
    with serving(tiny_bundle, *FLAGS, "--drain-delay-s", "300") as running:
        _await(lambda: _both_serve(running))
        for pid in [line["pid"] for line in _events(running, "process_ready")]:
            os.kill(pid, signal.SIGINT)

        assert running.stop(signal.SIGINT) == 0


def test_a_second_signal_ends_all(tiny_bundle: Path) -> None:
    """A second SIGTERM does not wait, and leaves no process behind."""
    with serving(tiny_bundle, *FLAGS, "--drain-delay-s", "300") as running:
        _await(lambda: _both_serve(running))
        pids = [line["pid"] for line in _events(running, "process_ready")]
        running.popen.send_signal(signal.SIGTERM)
        _await(lambda: ask(running.admin_port, "GET", "/readyz")[0] == 503)

        assert running.stop(signal.SIGTERM) == 143
        _await(lambda: not any(Path(f"/proc/{pid}/fd").exists() and _is_running(pid) for pid in pids))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_orphans_leave(tiny_bundle: Path) -> None:
    """If the parent is killed, its processes drain and end by themselves."""
    with serving(tiny_bundle, *FLAGS, "--drain-delay-s", "0") as running:
        _await(lambda: _both_serve(running))
        pids = [line["pid"] for line in _events(running, "process_ready")]
        running.popen.kill()
        running.popen.wait(WAIT_S)
        _await(lambda: not any(_is_running(pid) for pid in pids))


def test_a_process_that_hangs_is_replaced(tiny_bundle: Path) -> None:
    """One that answers nothing for as long as the watchdog allows is killed; the other one serves meanwhile."""
    with serving(tiny_bundle, *FLAGS, "--watchdog-s", "1") as running:
        _await(lambda: _both_serve(running))
        os.kill(_events(running, "process_ready")[0]["pid"], signal.SIGSTOP)
        _await(lambda: len(_events(running, "process_ready")) == 3)

        assert len(_events(running, "process_hangs")) == 1
        assert ask(running.admin_port, "GET", "/readyz")[0] == 200
        assert running.stop() == 0


def test_an_admin_call_reaches_every_process(tiny_bundle: Path) -> None:
    """A call to the parent's second port is made of each process with its key, and the worst answer comes back."""
    with serving(tiny_bundle, *FLAGS, "--admin-key", "k" * 32) as running:
        _await(lambda: _both_serve(running))

        def reload(key: str) -> tuple[int, bytes]:
            headers = {"authorization": f"Bearer {key}"}
            return ask(running.admin_port, "POST", "/admin/reload", "{}", headers)

        assert (200, 401) == (reload("k" * 32)[0], reload("x")[0])
        assert _scrape(running)['shelfrank_reloads_total{result="done"}'] == 2
        assert ask(running.admin_port, "GET", "/admin/models")[0] == 401
        assert ask(running.admin_port, "POST", "/admin/nothing", "{}")[0] == 404


def test_a_start_that_cannot_succeed_says_why_once(tiny_bundle: Path) -> None:
    """With several processes too, a bundle that is refused is exit code 3 and one line."""
    popen = start(tiny_bundle, *FLAGS, "--bundle", "absent", "--log-level", "error")
    _, err = popen.communicate(timeout=WAIT_S)

    assert (3, 1) == (popen.returncode, err.count("\n"))
    assert "not_found" in err
