"""Tests of reloads in a real process: under load, of what is corrupt, by signal, and what they leave in memory."""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from bundle import read_bundle
from bundle.store import write_bundle
from service import create_app
from service.settings import Settings
from tests.service.support import WAIT_S, Process, Served, serving
from tests.tiny import WORDS, tiny_files, tiny_manifest

RELOADS = 20
CARD_BYTES = 8_000_000  # what a bundle takes in memory at least
LISTS = [
    {"query": " ".join(WORDS[start : start + 2]), "documents": [*WORDS[start : start + 9], "mug", ""]}
    for start in range(20, 80, 6)
]
FLAGS = ("--workers", "2", "--bundle", "one")
# The service as it is, but for a list that holds on to each model that is replaced.
LEAKING = """
import sys
from service.__main__ import main
from service.rollout.versions import Versions
kept, replace = [], Versions.replace
def hold(self, stable):
    kept.append(self.stable)
    replace(self, stable)
Versions.replace = hold
sys.exit(main())
"""
MOST_BYTES = 3 * CARD_BYTES
Scores = dict[str, list[list[tuple[int, float]]]]


def build(root: Path, name: str, seed: int) -> str:
    """Write a bundle with a large card, in the place of another one, and return its id."""
    files = {**tiny_files(seed=seed), "card.md": b"#" * CARD_BYTES}
    manifest = tiny_manifest(files).model_copy(update={"version": f"{seed}"})
    write_bundle(root, name, manifest, files, replace=True)
    return read_bundle(root, name).id


def corrupt(root: Path, name: str) -> None:
    """Flip one bit of a bundle's graph."""
    graph = root / name / "model.onnx"
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Bundles of two versions, with other weights."""
    for seed, name in enumerate(("one", "two"), start=1):
        build(tmp_path, name, seed)
    return tmp_path


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Make a call and return its status and its JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def scores(answer: Any) -> list[tuple[int, float]]:
    """Each document with its score, best first."""
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


def expected(root: Path, *names: str) -> Scores:
    """What each bundle says of each list, by its id, from an application in this process."""
    told: Scores = {}
    for name in names:
        settings = Settings(models_root=root, bundle=name, workers=1, cache_bytes=0)
        with Served(create_app(settings)) as served:
            told[read_bundle(root, name).id] = [scores(served.post(body).json) for body in LISTS]
    return told


class Clients:
    """Two clients that ask without a pause, and note every answer that is not wholly of the bundle that it names."""

    def __init__(self, port: int, told: Scores) -> None:
        self.wrong: list[object] = []
        self.seen: dict[str, int] = dict.fromkeys(told, 0)
        self._port = port
        self._told = told
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _ask(self, place: int) -> None:
        number = place
        while not self._over.is_set():
            which = number % len(LISTS)
            number += 1
            try:
                status, answer = ask(self._port, "POST", "/v1/rerank", LISTS[which])
                bundle = answer.get("bundle")
                if status != 200 or answer["degraded"] or scores(answer) != self._told[bundle][which]:
                    self.wrong.append((status, answer))
                self.seen[bundle] += 1
            except (OSError, http.client.HTTPException, KeyError) as error:
                self.wrong.append(error)


def rss_bytes(process: Process) -> int:
    """Memory that a process has in RAM."""
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def events(process: Process, name: str) -> list[dict[str, Any]]:
    """The log lines of an event."""
    return [line for line in list(process.lines) if line["event"] == name]


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something is so in the process."""
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def reload_often(running: Process) -> int:
    """Have two bundles take turns, and return by how many bytes the process grew after the first few."""
    before = 0
    for number in range(RELOADS):
        bundle = ("two", "one")[number % 2]
        status, answer = ask(running.admin_port, "POST", "/admin/reload", {"bundle": bundle})
        assert (status, answer["models"][0]["directory"]) == (200, bundle)
        if number == 3:
            before = rss_bytes(running)
    return rss_bytes(running) - before


@pytest.mark.parametrize("cache_bytes", ["0", "1000000"])
def test_many_reloads_under_load(root: Path, cache_bytes: str) -> None:
    """Over 20 reloads no request fails, every answer is wholly of the bundle it names, and memory stays what it was."""
    told = expected(root, "one", "two")
    with (
        serving(root, *FLAGS, "--cache-bytes", cache_bytes) as running,
        Clients(running.port, told) as clients,
    ):
        grown = reload_often(running)
        answered = sum(clients.seen.values())
        wait(lambda: sum(clients.seen.values()) > answered + 10)

    assert clients.wrong == []
    assert min(clients.seen.values()) > 0
    assert grown < MOST_BYTES
    assert len(events(running, "reloaded")) == RELOADS


def test_a_leak_would_be_seen(root: Path) -> None:
    """The same reloads in a service that keeps what it replaces grow by more than the bound."""
    with serving(root, *FLAGS, program=("-c", LEAKING)) as running:
        assert reload_often(running) > MOST_BYTES


def test_a_corrupt_bundle_is_refused_while_the_old_one_serves(root: Path) -> None:
    """The caller is told which step failed, as often as it asks, and meanwhile nobody else notices."""
    told = expected(root, "one")
    corrupt(root, "two")
    with serving(root, *FLAGS) as running, Clients(running.port, told) as clients:
        answers = [ask(running.admin_port, "POST", "/admin/reload", {"bundle": "two"}) for _ in range(3)]
        answers.append(ask(running.admin_port, "POST", "/admin/canary", {"bundle": "two"}))
        answered = sum(clients.seen.values())
        wait(lambda: sum(clients.seen.values()) > answered + 10)

    assert [(422, "hash_mismatch")] * 4 == [(status, answer["error"]) for status, answer in answers]
    assert clients.wrong == []
    assert [line["code"] for line in events(running, "reload_failed")] == ["hash_mismatch"] * 4


def test_a_hangup_reloads_what_is_now_in_the_directory(root: Path) -> None:
    """SIGHUP brings in a bundle that was put in the place of the old one; one that is corrupt changes nothing."""
    with serving(root, *FLAGS) as running:
        bundle = build(root, "one", seed=3)
        running.popen.send_signal(signal.SIGHUP)
        wait(lambda: len(events(running, "reloaded")) == 1)
        assert ask(running.port, "POST", "/v1/rerank", LISTS[0])[1]["bundle"] == bundle
        corrupt(root, "one")
        running.popen.send_signal(signal.SIGHUP)
        wait(lambda: len(events(running, "reload_failed")) == 1)

        assert ask(running.port, "POST", "/v1/rerank", LISTS[0])[1]["bundle"] == bundle
        assert ask(running.port, "GET", "/readyz")[0] == 200
        assert running.stop() == 0


def test_a_canary_in_a_process(root: Path) -> None:
    """Of many queries about its share is answered by the canary, the same ones each time, and all after its promotion."""
    queries = [{"query": f"mug {number}", "documents": ["mug"]} for number in range(200)]
    two = read_bundle(root, "two").id
    with serving(root, *FLAGS, "--canary-compared", "0", "--canary-slowdown", "1000") as running:
        assert ask(running.admin_port, "POST", "/admin/canary", {"bundle": "two", "share": 0.3})[0] == 200
        rounds = [
            [ask(running.port, "POST", "/v1/rerank", body)[1]["bundle"] == two for body in queries]
            for _ in range(2)
        ]
        assert ask(running.admin_port, "POST", "/admin/canary/promote")[0] == 200
        promoted = {ask(running.port, "POST", "/v1/rerank", body)[1]["bundle"] for body in queries[:20]}

    assert rounds[0] == rounds[1]
    assert 0.2 < sum(rounds[0]) / len(queries) < 0.4
    assert promoted == {two}


def test_a_shadow_costs_requests_nothing_but_spare_time(root: Path) -> None:
    """With a shadow of all requests every answer is still the stable model's, whole, and lists are compared."""
    told = expected(root, "one")
    with serving(root, *FLAGS, "--cache-bytes", "0") as running, Clients(running.port, told) as clients:
        assert ask(running.admin_port, "POST", "/admin/shadow", {"bundle": "two"})[0] == 200

        def compared() -> int:
            models = ask(running.admin_port, "GET", "/admin/models")[1]["models"]
            return int(models[1]["lists"])

        wait(lambda: compared() >= 20)

    assert clients.wrong == []
