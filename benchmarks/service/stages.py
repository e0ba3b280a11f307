"""Shows where the time of a request goes when the service is idle, and what it adds to the bare call of the runtime.

Knows raw HTTP, the stages that an answer tells, and a session of the same bundle; does not know load.
Invariant: bare calls and requests take turns in one run; the last line is one JSON document.

    python benchmarks/service/stages.py                       one document, 50 as text, the same 50 by id
    python benchmarks/service/stages.py --cache               the same with the score cache on, and no pair asked for twice

Exit codes: 0 measured, 1 could not measure.
"""

import argparse
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.percentile import percentile
from benchmarks.shared.products import read_products
from benchmarks.shared.target import (
    REPOSITORY,
    ServiceError,
    describe_commit,
    describe_machine,
    describe_versions,
    running_service,
)
from bundle import PairEncoder, Product, read_bundle
from bundle.rows import assemble, padded_length
from service.engine.sessions import open_sessions

MEASURED, FAILED = 0, 1
LIST: Final = 50
LISTS: Final = 40
WARM_UP: Final = 30
STAGES: Final = ("receive", "parse", "queue", "tokenize", "infer")


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one kind of request, in milliseconds, seen by a client on the same machine.

    `bare_ms` is the engine's call for the same pair, in a process of its own, None for a list. `beside_ms` is all of
    the request but computing. `idle_ms` is how long the client waits for an answer that says nothing, asked for after
    a pause as long as the list took: two processes that are woken, their sockets, and the framework.
    """

    kind: str
    request_bytes: int
    request_ms: float
    p99_ms: float
    bare_ms: float | None
    beside_ms: float
    idle_ms: float
    stages_ms: dict[str, float]


class Client:
    """One kept-alive connection with the least of work between write and read."""

    def __init__(self, url: str) -> None:
        """Connect to the service at `url`."""
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = parts.netloc

    def payload(self, method: str, path: str, body: bytes) -> bytes:
        """Return the bytes of a whole request."""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def ask(self, payload: bytes) -> tuple[float, dict[str, object]]:
        """Send a request; return the seconds until its answer was complete, and the answer."""
        began_s = time.perf_counter()
        self._socket.sendall(payload)
        data = self._socket.recv(1 << 20)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._socket.recv(1 << 20)
        took_s = time.perf_counter() - began_s
        if not head.startswith(b"HTTP/1.1 200"):
            raise ServiceError(f"the service answered {head.splitlines()[0].decode()}")
        return took_s, json.loads(body) if body else {}


def measure(url: str, rounds: int, seed: int, *, fresh: bool) -> list[Line]:
    """Measure each kind of request; a bare call of the engine goes with each request of one document.

    With `fresh` no query is asked twice: each has its number as a word more.
    """
    rng = random.Random(seed)  # noqa: S311 - load, not secrets
    rows = read_products()
    texts = [{name: text for name, text in row.items() if name != "query" and text} for row in rows]
    queries = sorted({row["query"] for row in rows})
    client = Client(url)
    stored = [{"id": f"sku-{number}", **text} for number, text in enumerate(texts)]
    client.ask(client.payload("PUT", "/v1/products", json.dumps({"products": stored}).encode()))
    bare = _bare_call()
    kinds: dict[str, Callable[[list[int]], Sequence[object]]] = {
        "1 as text": lambda chosen: [texts[chosen[0]]],
        f"{LIST} as text": lambda chosen: [texts[number] for number in chosen],
        f"{LIST} by id": lambda chosen: [{"id": f"sku-{number}"} for number in chosen],
    }
    lists = [(rng.choice(queries), rng.sample(range(len(texts)), LIST)) for _ in range(LISTS)]
    return [
        _line(client, kind, documents, lists, bare, rounds, fresh=fresh) for kind, documents in kinds.items()
    ]


def _line(  # noqa: PLR0913, PLR0917  one kind of request, and what goes with it
    client: Client,
    kind: str,
    documents: Callable[[list[int]], Sequence[object]],
    lists: Sequence[tuple[str, list[int]]],
    bare: Callable[[str, object], float],
    rounds: int,
    *,
    fresh: bool,
) -> Line:
    is_single = kind.startswith("1 ")
    sizes, times_s, idle_s, bare_s, stages = [], [], [], [], []
    for number in range(WARM_UP + rounds):
        query, chosen = lists[number % len(lists)]
        asked = documents(chosen)
        text = f"{query} {kind.replace(' ', '')}{number}" if fresh else query
        body = json.dumps({"query": text, "documents": asked}, ensure_ascii=False).encode()
        payload = client.payload("POST", "/v1/rerank", body)
        took_s, answer = client.ask(payload)
        alone_s = bare(query, asked[0]) if is_single else 0.0
        time.sleep(took_s)
        nothing_s, _ = client.ask(client.payload("GET", "/livez", b""))
        if number >= WARM_UP:
            sizes.append(len(payload))
            times_s.append(took_s)
            idle_s.append(nothing_s)
            bare_s.append(alone_s)
            stages.append(answer["timings_ms"])
    medians = {stage: statistics.median(told[stage] for told in stages) for stage in STAGES}  # type: ignore[index]  # our own answer
    beside = [took * 1_000 - told["infer"] for took, told in zip(times_s, stages, strict=True)]  # type: ignore[index]  # as above
    return Line(
        kind=kind,
        request_bytes=round(statistics.mean(sizes)),
        request_ms=statistics.median(times_s) * 1_000,
        p99_ms=(percentile(times_s, 0.99) or 0.0) * 1_000,
        bare_ms=statistics.median(bare_s) * 1_000 if is_single else None,
        beside_ms=statistics.median(beside),
        idle_ms=statistics.median(idle_s) * 1_000,
        stages_ms=medians,
    )


def _bare_call() -> Callable[[str, object], float]:
    """Return what runs one pair in a session of the same bundle and says how many seconds that took."""
    name = os.environ.get("SHELFRANK_BUNDLE", "default")
    bundle = read_bundle(REPOSITORY / "models", name)
    (session,) = open_sessions(bundle, precision=None, workers=1, engine="auto")
    contract = bundle.manifest.text
    encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], contract)

    def run(query: str, document: object) -> float:
        assert isinstance(document, dict)
        fields = {
            name: "\n".join(text) if isinstance(text, list) else text for name, text in document.items()
        }
        rows = encoder.encode(query, [Product(**fields)])
        feeds = assemble(rows, contract.template, padded_length(len(rows[0]), contract.max_length))
        began_s = time.perf_counter()
        session.run(feeds)
        return time.perf_counter() - began_s

    return run


def format_table(lines: Sequence[Line]) -> str:
    """Return the figures as a Markdown table."""
    heads = [
        "documents",
        "request bytes",
        "request ms",
        "p99 ms",
        "bare call ms",
        "all but infer ms",
        "idle ms",
        *STAGES,
    ]
    out = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    for line in lines:
        bare = "-" if line.bare_ms is None else f"{line.bare_ms:.2f}"
        cells = [line.kind, str(line.request_bytes), f"{line.request_ms:.2f}", f"{line.p99_ms:.2f}", bare]
        cells += [
            f"{line.beside_ms:.2f}",
            f"{line.idle_ms:.2f}",
            *(f"{line.stages_ms[stage]:.3f}" for stage in STAGES),
        ]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON document, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/service/stages.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--rounds", type=int, default=300, help="requests of each kind [300]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the lists [1]")
    parser.add_argument(
        "--cache", action="store_true", help="leave the score cache on, and ask no query twice"
    )
    options = parser.parse_args(argv)
    machine = describe_machine()
    if not options.cache:
        os.environ["SHELFRANK_CACHE_BYTES"] = "0"  # the lists repeat; a cache would answer them
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SHELFRANK_CATALOGUE"] = str(Path(folder) / "catalogue")
            with running_service() as url:
                lines = measure(url, options.rounds, options.seed, fresh=options.cache)
    except (ServiceError, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    print(format_table(lines))
    single = lines[0]
    assert single.bare_ms is not None
    print(
        f"\none document: {single.request_ms - single.bare_ms:.2f} ms beside the bare call of {single.bare_ms:.2f} ms"
    )
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before, commit {describe_commit()}"
    )
    document = {
        "benchmark": "stages",
        "cache": options.cache,
        "lines": [asdict(line) for line in lines],
        "overhead_ms": single.request_ms - single.bare_ms,
        "machine": machine,
        "versions": describe_versions(),
        "commit": describe_commit(),
    }
    print(json.dumps(document))
    return MEASURED


if __name__ == "__main__":
    sys.exit(main())
