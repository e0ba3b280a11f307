"""Measures how long shelfrank takes to rank lists of 10, 50 and 100 products under open-loop load.

Knows the API's request and the figures people ask for; does not know how a request is sent.
Invariant: the last line is one JSON document, and figures of a generator that was itself late are called VOID.

    python benchmarks/service/latency.py                      a service of this checkout on a free port
    python benchmarks/service/latency.py --url http://...     one that runs already

Exit codes: 0 measured, 1 could not measure, 2 VOID.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.load import Pool, Sample, closed_loop, open_loop, poisson_times, run
from benchmarks.shared.percentile import percentile
from benchmarks.shared.products import make_bodies, read_products
from benchmarks.shared.target import (
    ServiceError,
    describe_commit,
    describe_machine,
    describe_versions,
    running_service,
)

MEASURED, FAILED, VOID = 0, 1, 2
MIN_RATE, MAX_RATE = 0.2, 1_000.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the table. Times are milliseconds from the due time; None if nothing was answered."""

    products: int
    rate: float
    capacity: float | None
    requests: int
    errors: int
    degraded: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    goodput: float
    lateness_p99_ms: float


def summarise(
    samples: Sequence[Sample], *, products: int, rate: float, capacity: float | None, goal_ms: float
) -> Figures:
    """Reduce a run to its figures.

    Goodput is the share of all requests that were answered in full within the goal; a request that
    failed has no latency and counts against goodput only.
    """
    answered = [sample for sample in samples if sample.status == 200]
    latencies_ms = [(sample.done_s - sample.due_s) * 1_000 for sample in answered]
    full_ms = [(sample.done_s - sample.due_s) * 1_000 for sample in answered if sample.share == 1.0]
    lateness_ms = [(sample.sent_s - sample.due_s) * 1_000 for sample in samples]
    return Figures(
        products=products,
        rate=rate,
        capacity=capacity,
        requests=len(samples),
        errors=len(samples) - len(answered),
        degraded=len(answered) - len(full_ms),
        p50_ms=percentile(latencies_ms, 0.5),
        p95_ms=percentile(latencies_ms, 0.95),
        p99_ms=percentile(latencies_ms, 0.99),
        p999_ms=percentile(latencies_ms, 0.999),
        max_ms=max(latencies_ms, default=None),
        goodput=sum(full <= goal_ms for full in full_ms) / max(1, len(samples)),
        lateness_p99_ms=percentile(lateness_ms, 0.99) or 0.0,
    )


def format_table(rows: Sequence[Figures], goal_ms: float) -> str:
    """Return the figures as a Markdown table."""
    heads = ["products", "requests/s", "of capacity", "requests", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms"]
    heads += [f"within {goal_ms:g} ms", "errors", "lateness p99 ms"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    for row in rows:
        share = "-" if row.capacity is None else f"{row.rate / row.capacity:.0%} of {row.capacity:.1f}/s"
        times = [
            "-" if time_ms is None else f"{time_ms:.1f}"
            for time_ms in (row.p50_ms, row.p95_ms, row.p99_ms, row.p999_ms)
        ]
        cells = [str(row.products), f"{row.rate:.1f}", share, str(row.requests), *times]
        cells += [f"{row.goodput:.1%}", str(row.errors), f"{row.lateness_p99_ms:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def measure(url: str, options: argparse.Namespace) -> tuple[dict[str, object], list[Figures]]:
    """Return what the service says it serves, and the figures of each size."""
    products = read_products()
    pool = Pool(url, options.connections, options.timeout_s)
    try:
        await pool.open()
        about = await pool.send(pool.payload("GET", "/"))
        served = json.loads(about.body) if about.status == 200 else {}
        rows = []
        for size in options.sizes:
            rng = random.Random(f"{options.seed}/{size}")  # noqa: S311 - load, not secrets
            bodies = make_bodies(products, size, rng)
            payloads = [pool.payload("POST", "/v1/rerank", body) for body in bodies]
            rows.append(await _measure_size(pool, payloads, size, rng, options))
    except OSError as error:
        raise ServiceError(f"nothing answers at {url}: {error}") from error
    finally:
        pool.close()
    return served, rows


async def _measure_size(
    pool: Pool, payloads: Sequence[bytes], size: int, rng: random.Random, options: argparse.Namespace
) -> Figures:
    await _check_first_answer(pool, payloads[0], size)
    capacity = await closed_loop(
        pool,
        payloads,
        clients=options.clients,
        duration_s=options.warmup_s,
        max_requests=options.max_requests,
    )
    wanted = options.rate or capacity * options.load
    rate = min(MAX_RATE, max(MIN_RATE, wanted))
    print(f"{size} products: capacity {capacity:.1f}/s, driven at {rate:.1f}/s", file=sys.stderr, flush=True)
    due_times = poisson_times(rate, options.duration_s, options.max_requests, rng)
    samples = await open_loop(pool, payloads, due_times, _full_or_nothing)
    return summarise(samples, products=size, rate=rate, capacity=capacity or None, goal_ms=options.goal_ms)


def _full_or_nothing(body: bytes) -> float:
    return float(b'"degraded":null' in body)


async def _check_first_answer(pool: Pool, payload: bytes, size: int) -> None:
    """Refuse to time a service that does not rank: every product has to come back with a score."""
    answer = await pool.send(payload)
    if answer.status != 200:
        raise ServiceError(f"a rerank of {size} products got status {answer.status or 'none at all'}")
    results = json.loads(answer.body)["results"]
    if len(results) != size or not all(0.0 <= result["relevance_score"] <= 1.0 for result in results):
        raise ServiceError(
            f"a rerank of {size} products gave {len(results)} results or a score outside [0, 1]"
        )


class _Parser(argparse.ArgumentParser):
    """Leaves with code 1 on a bad option, because 2 means VOID."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: {message}\n")


def _between(low: float, high: float, kind: type[int] | type[float] = float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {low:g} to {high:g}")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="benchmarks/service/latency.py", description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--url", help="measure this service; default: start one of this checkout on a free port")
    add("--sizes", type=_sizes, default=[10, 50, 100], help="products of a list, comma-separated [10,50,100]")
    add("--rate", type=_between(MIN_RATE, MAX_RATE), help="requests/s; default: --load of the capacity")
    add("--load", type=_between(0.01, 2.0), default=0.3, help="share of the warm-up's capacity [0.3]")
    add("--duration-s", type=_between(0.1, 600), default=20.0, help="seconds a size is driven [20]")
    add("--warmup-s", type=_between(0.1, 60), default=3.0, help="seconds of closed-loop warm-up a size [3]")
    add("--clients", type=_between(1, 64, int), default=2, help="clients of the warm-up [2]")
    add("--goal-ms", type=_between(0.1, 60_000), default=50.0, help="goodput counts answers within this [50]")
    add("--max-requests", type=_between(1, 100_000, int), default=20_000, help="most requests a size [20000]")
    add("--connections", type=_between(1, 512, int), default=64, help="kept-alive connections [64]")
    add(
        "--timeout-s",
        type=_between(0.1, 120),
        default=10.0,
        help="an answer later than this is an error [10]",
    )
    add(
        "--max-lateness-ms",
        type=_between(0, 1_000),
        default=5.0,
        help="VOID if the sender's p99 is over it [5]",
    )
    add("--seed", type=int, default=1, help="seed of the lists and of the arrival times [1]")
    return parser


def _sizes(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",")]
    if not all(1 <= size <= 180 for size in sizes):
        raise argparse.ArgumentTypeError("expected sizes of 1 to 180 products")
    return sizes


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON document, return the exit code."""
    options = _parser().parse_args(argv)
    machine = describe_machine()
    os.environ["SHELFRANK_CACHE_BYTES"] = "0"  # the lists repeat; a cache would answer them
    try:
        with nullcontext(options.url) if options.url else running_service() as url:
            served, rows = run(lambda: measure(url, options))
    except (ServiceError, ValueError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    late = [row.products for row in rows if row.lateness_p99_ms > options.max_lateness_ms]
    document = {
        "benchmark": "latency",
        "void": bool(late),
        "goal_ms": options.goal_ms,
        "rows": [asdict(row) for row in rows],
        "served": {name: served.get(name) for name in ("model", "bundle")},
        "machine": machine,
        "versions": describe_versions(),
        "commit": describe_commit(),
        "options": {name: value for name, value in vars(options).items() if name != "url"},
    }
    print(format_table(rows, options.goal_ms))
    print(f"\n{served.get('model')} ({served.get('bundle')}), commit {document['commit']}")
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before, {machine['system']}"
    )
    print(", ".join(f"{name} {version}" for name, version in describe_versions().items()))
    if late:
        print(f"VOID: the generator was late (p99 over {options.max_lateness_ms:g} ms) at sizes {late}")
    print(json.dumps(document))
    return VOID if late else MEASURED


if __name__ == "__main__":
    sys.exit(main())
