"""What the tests of the service share: an application in this process, a real one beside it, a fake engine.

Knows how to start and stop them; does not know what is tested with them.
Invariant: whatever was started is stopped, by the id of the process that was started.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import Counter

from bundle import read_bundle
from bundle.manifest import TensorSpec
from service.app.application import build_app
from service.domain.budget import DEFAULT_TENANT, Terms
from service.domain.ranking import Ranking
from service.engine.model import LoadedModel
from service.errors import Reason, error_message
from service.rollout.versions import Version, Versions
from service.scoring.admission import Admission
from service.scoring.job import EncodableGroups
from service.scoring.scorer import Scorer
from service.scoring.worker import WorkerPool
from service.settings import PREFIX, Settings
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
SERVICE = ("-m", "service")
JSON = {"content-type": "application/json"}
WAIT_S = 30.0
CODES = {reason.code: reason for reason in Reason}
Result = TypeVar("Result")


@dataclass
class FakeSession:
    """An engine whose logit is the row's second token id / 100, and which fails as it is told to."""

    fails: Callable[[NDArray[np.int64]], bool] = lambda ids: False  # noqa: ARG005 - the name says what it is
    nonfinite: Callable[[NDArray[np.int64]], bool] = lambda row: False  # noqa: ARG005 - as above
    gate: threading.Event | None = None
    runs: list[tuple[int, ...]] = field(default_factory=list)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def run(self, feeds: Mapping[str, NDArray[np.int64]], /) -> NDArray[np.float32]:
        """Note the shape, wait for the gate, then compute or fail."""
        ids = feeds["input_ids"]
        self.runs.append(ids.shape)
        if self.gate is not None:
            assert self.gate.wait(WAIT_S)
        if self.fails(ids):
            raise RuntimeError("the fake engine fails")
        logits = ids[:, 3].astype(np.float32) / 100
        logits[[self.nonfinite(row) for row in ids]] = np.nan
        return logits


def terms(deadline_s: float | None = None, **changes: Any) -> Terms:
    """The terms of an ordinary request, due in WAIT_S if not said otherwise."""
    due_s = time.monotonic() + WAIT_S if deadline_s is None else deadline_s
    ordinary: dict[str, Any] = {"priority": "search", "on_failure": "degrade", "tenant": DEFAULT_TENANT}
    return Terms(deadline_s=due_s, **ordinary | changes)


@dataclass(frozen=True)
class Bench:
    """The tiny bundle on fake engines, not started."""

    model: LoadedModel
    scorer: Scorer

    @property
    def pool(self) -> WorkerPool:
        """Its workers."""
        return self.scorer.pool

    def rank(self, groups: EncodableGroups, **options: Any) -> asyncio.Future[Ranking]:
        """Rank under ordinary terms, or as told."""
        asked = {name: options.pop(name) for name in ("measured",) if name in options}
        return self.scorer.rank(self.model, groups, terms(**options), **asked)


def fake_bench(
    root: Path,
    *sessions: FakeSession,
    metrics: Metrics | None = None,
    weights: Mapping[str, float] | None = None,
) -> Bench:
    """A scorer of the tiny bundle on fake engines."""
    counted, shares = metrics or Metrics(), weights or {DEFAULT_TENANT: 1.0}
    pool = WorkerPool(
        len(sessions),
        shares,
        on_drop=counted.dropped.inc,
        on_error=lambda error: counted.worker_errors.inc(),  # noqa: ARG005
    )
    model = LoadedModel(read_bundle(root, "tiny"), "fp32", "cpu", sessions)
    return Bench(model, Scorer(pool, Admission(10**9, shares)))


def fake_app(root: Path, *sessions: FakeSession, **settings: object) -> FastAPI:
    """An application of the tiny bundle on fake engines."""
    metrics, told = Metrics(), Settings(**{"cache_bytes": 0} | settings)  # type: ignore[arg-type]
    bench = fake_bench(root, *sessions, metrics=metrics, weights=told.tenant_weights)
    scorer = Scorer(bench.pool, Admission(told.queue_tokens, told.tenant_weights))
    return build_app(told, Versions(Version(bench.model)), scorer, metrics)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed by an independent parser."""
        return json.loads(self.body)


def is_documented_error(answer: Answer) -> bool:
    """Whether an answer is one of the table's errors, short and in the closed shape."""
    told = answer.json
    reason = CODES[told["error"]]
    return (
        set(told) == {"error", "message", "detail", "loc", "id"}
        and (reason.status, reason.message) == (answer.status, told["message"])
        and told["detail"] == error_message(reason, tuple(told["loc"]))
        and answer.headers["x-request-id"] == told["id"]
        and len(answer.body) <= 512
    )


class Served:
    """An application in this process, between start-up and shutdown, on an event loop of its own."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        self._lifespan = self.app.router.lifespan_context(self.app)
        self.run(self._lifespan.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self.run(self._lifespan.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def run(self, work: Awaitable[Result]) -> Result:
        """Finish some work on the application's event loop."""

        async def bounded() -> Result:
            return await asyncio.wait_for(work, WAIT_S)

        return self.loop.run_until_complete(bounded())

    def get(self, path: str) -> Answer:
        """GET a path."""
        return self.run(exchange(self.app, "GET", path))

    def post(self, body: object, headers: Mapping[str, str] = JSON) -> Answer:
        """POST to /v1/rerank."""
        return self.run(rerank(self.app, body, headers))

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series."""
        value = self.app.state.metrics.registry.get_sample_value(name, labels)
        assert value is not None, f"no series {name} {labels}"
        return float(value)


async def rerank(app: FastAPI, body: object, headers: Mapping[str, str] = JSON) -> Answer:
    """POST to /v1/rerank; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await exchange(app, "POST", "/v1/rerank", raw, headers)


async def exchange(  # noqa: PLR0913, PLR0917 - the parts of an HTTP request
    app: FastAPI,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    hung_up: asyncio.Event | None = None,
    chunk: int = 65_536,
) -> Answer:
    """Send one request through ASGI as a server does; `hung_up` makes the client leave."""
    chunks = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]
    pending = iter(chunks)
    left = len(chunks)
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal left
        if left:
            left -= 1
            return {"type": "http.request", "body": next(pending), "more_body": left > 0}
        await (hung_up or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": None,
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    told = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return Answer(messages[0]["status"], told, b"".join(part.get("body", b"") for part in messages[1:]))


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    while not condition():  # noqa: ASYNC110 - what is waited for happens on another thread
        await asyncio.sleep(0)


@dataclass
class Process:
    """A running `python -m service`."""

    popen: "subprocess.Popen[str]"
    port: int
    lines: list[dict[str, Any]]
    admin_port: int = 0

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.popen.send_signal(signal_number)
        return self.popen.wait(WAIT_S)


def count(counter: Counter) -> int:
    """Return what one series of a counter has counted."""
    (sample,) = (each for each in counter.collect()[0].samples if each.name.endswith("_total"))
    return int(sample.value)


def start(
    root: Path, *flags: str, environ: Mapping[str, str] | None = None, program: Sequence[str] = SERVICE
) -> "subprocess.Popen[str]":
    """Start the service on a free port, with the tiny bundle of `root` unless `flags` say otherwise."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return subprocess.Popen(
        [
            sys.executable,
            *program,
            "--models-root",
            str(root),
            "--bundle",
            "tiny",
            "--port",
            "0",
            "--admin-port",
            "0",
            *flags,
        ],
        cwd=ROOT,
        env={**inherited, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def serving(root: Path, *flags: str, program: Sequence[str] = SERVICE) -> Iterator[Process]:
    """A service that listens; on leaving it is stopped if it still runs."""
    with listening(start(root, *flags, program=program)) as process:
        yield process


@contextlib.contextmanager
def listening(popen: "subprocess.Popen[str]", wait_s: float = WAIT_S) -> Iterator[Process]:
    """A service that was started, once it listens; on leaving it is stopped if it still runs."""
    process, is_up = Process(popen, 0, []), threading.Event()

    def collect() -> None:
        for line in popen.stderr or ():
            process.lines.append(json.loads(line))
            if process.lines[-1]["event"] == "listening":
                process.port, process.admin_port = (
                    int(process.lines[-1][name].rpartition(":")[2]) for name in ("url", "admin")
                )
                is_up.set()

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    try:
        assert is_up.wait(wait_s), f"the service did not start: {process.lines}"
        yield process
    finally:
        if popen.poll() is None:
            popen.send_signal(signal.SIGINT)  # so that the process can leave its coverage behind
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(WAIT_S)
        popen.kill()
        collector.join(WAIT_S)
        assert popen.stderr is not None
        popen.stderr.close()


def ask(
    port: int,
    method: str,
    path: str,
    body: str | None = None,
    headers: Mapping[str, str] = JSON,
) -> tuple[int, bytes]:
    """Send one request to a real process on a connection of its own; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
