"""Measures latency over load: idle, and with requests that come at random at shares of the capacity.

Knows lists of products and queueing theory; does not know how a request is sent.
Invariant: the last line is one JSON document; figures of a generator that was itself late are called VOID.

    python benchmarks/service/curve.py --loads 0.3            idle, capacity, then 30 % of it
    python benchmarks/service/curve.py --loads 0.1 > low.txt; python benchmarks/service/curve_plot.py docs/figures/load.svg low.txt ...

It also tells how long the service took to start and how much memory it held. Requests leave the service a minute's time:
nothing is left out, so the tail is all there. The generator runs on the service's cores, which makes its figures worse.

Exit codes: 0 measured, 1 could not measure, 2 VOID.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.service.queueing import equal_times_quantile, highest_load, least_late_share, simulate
from benchmarks.shared.load import Pool, Sample, closed_loop, open_loop, poisson_times, run
from benchmarks.shared.percentile import percentile
from benchmarks.shared.products import make_bodies, read_products
from benchmarks.shared.target import (
    ServiceError,
    describe_commit,
    describe_machine,
    describe_versions,
    started_service,
)

MEASURED, FAILED, VOID = 0, 1, 2
GOAL_LOAD: Final = 0.3
GOAL: Final = 2.0  # p99 at GOAL_LOAD, in median service times
MAX_LATENESS_MS: Final = 10.0
WARM_UP: Final = 40
_PAUSE_S: Final = 0.05
_PATIENT_MS: Final = 60_000
_RESAMPLES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Point:
    """What came of one load. Times are milliseconds from the due time.

    `utilisation` is rate times idle service time. `p99_low_ms` and `p99_high_ms` bound the p99 with 95 % confidence.
    `equal_p99_ms` is theory for one server and equal lists, `single_p99_ms` for one server and the times that the idle
    service took; neither knows the generator.
    """

    load: float
    rate: float
    utilisation: float
    requests: int
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_low_ms: float
    p99_high_ms: float
    lateness_p99_ms: float
    equal_p99_ms: float | None
    single_p99_ms: float | None


def summarise(samples: Sequence[Sample], *, load: float, rate: float, idle_s: Sequence[float]) -> Point:
    """Reduce the samples of a load to its figures, beside what theory says of it."""
    full = [sample for sample in samples if sample.status == 200 and sample.share == 1.0]
    if not full:
        raise ServiceError(f"nothing was answered in full at {load:.0%} of the capacity")
    times_ms = [(sample.done_s - sample.due_s) * 1_000 for sample in full]
    low_ms, high_ms = p99_interval(times_ms)
    utilisation = rate * statistics.mean(idle_s)
    is_stable = utilisation < 0.98
    return Point(
        load=load,
        rate=rate,
        utilisation=utilisation,
        requests=len(samples),
        failed=len(samples) - len(full),
        p50_ms=percentile(times_ms, 0.5) or 0.0,
        p95_ms=percentile(times_ms, 0.95) or 0.0,
        p99_ms=percentile(times_ms, 0.99) or 0.0,
        p99_low_ms=low_ms,
        p99_high_ms=high_ms,
        lateness_p99_ms=percentile([(each.sent_s - each.due_s) * 1_000 for each in samples], 0.99) or 0.0,
        equal_p99_ms=equal_times_quantile(utilisation, 0.99) * statistics.median(idle_s) * 1_000
        if is_stable
        else None,
        single_p99_ms=(percentile(simulate(idle_s, rate), 0.99) or 0.0) * 1_000 if is_stable else None,
    )


def p99_interval(times_ms: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the 99th percentile, by drawing the requests anew."""
    values = np.asarray(times_ms)
    drawn = np.random.default_rng(seed).choice(values, (_RESAMPLES, len(values)))
    low, high = np.quantile(
        np.quantile(drawn, 0.99, axis=1, method="inverted_cdf"), (0.025, 0.975), method="inverted_cdf"
    )
    return float(low), float(high)


async def measure(url: str, options: argparse.Namespace) -> tuple[list[float], float, list[Point]]:
    """Return the seconds that lists take one at a time, the capacity in lists a second, and a point for each load."""
    products = read_products()
    rng = random.Random(options.seed)  # noqa: S311 - load, not secrets
    pool = Pool(url, options.connections, options.timeout_s)
    try:
        await pool.open()
        payloads = [
            pool.payload(
                "POST", "/v1/rerank", json.dumps(json.loads(body) | {"budget_ms": _PATIENT_MS}).encode()
            )
            for body in make_bodies(products, options.products, rng)
        ]
        idle_s = await _one_at_a_time(pool, payloads, options.idle)
        capacity = await closed_loop(
            pool, payloads, clients=options.clients, duration_s=options.capacity_s, max_requests=100_000
        )
        points = []
        for load in options.loads:
            rate = capacity * load
            due_times = poisson_times(rate, 2 * options.requests / rate, options.requests, rng)
            samples = await open_loop(pool, payloads, due_times, _is_full)
            points.append(summarise(samples, load=load, rate=rate, idle_s=idle_s))
            print(points[-1], file=sys.stderr, flush=True)
    except OSError as error:
        raise ServiceError(f"nothing answers at {url}: {error}") from error
    finally:
        pool.close()
    return idle_s, capacity, points


async def _one_at_a_time(pool: Pool, payloads: Sequence[bytes], count: int) -> list[float]:
    """Send requests with a pause after each answer; return the seconds of each but the first few."""
    took_s = []
    for number in range(WARM_UP + count):
        answer = await pool.send(payloads[number % len(payloads)])
        if answer.status != 200 or not _is_full(answer.body):
            raise ServiceError(
                f"a list got status {answer.status or 'none at all'}, or not all of it was ranked"
            )
        took_s.append(answer.done_s - answer.sent_s)
        await asyncio.sleep(_PAUSE_S)
    return took_s[WARM_UP:]


def _is_full(body: bytes) -> float:
    return float(b'"degraded":null' in body)


def verdict(point: Point, idle_ms: float) -> str:
    """Say whether the tail is as short as wished, and what theory says of the wish."""
    times = point.p99_ms / idle_ms
    measured = (
        f"p99 at most {GOAL:g} median service times at {point.load:.0%} of the capacity: "
        f"{'holds' if times <= GOAL else 'does not hold'}, it is {times:.2f} "
        f"({point.p99_low_ms / idle_ms:.2f} to {point.p99_high_ms / idle_ms:.2f}, n = {point.requests})."
    )
    if point.utilisation >= 1:
        return measured
    return (
        f"{measured}\nTheory of one server and equal lists at this utilisation of {point.utilisation:.1%}: first come "
        f"first served gives {equal_times_quantile(point.utilisation, 0.99):.2f}; in any order at least "
        f"{least_late_share(GOAL, point.utilisation):.1%} take longer than {GOAL:g}; first come first served keeps to "
        f"{GOAL:g} up to a utilisation of {highest_load(GOAL, 0.99):.1%}."
    )


def format_table(points: Sequence[Point], idle_ms: float) -> str:
    """Return the figures as a Markdown table."""
    heads = [
        "load",
        "lists/s",
        "utilisation",
        "n",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "95 % interval",
        "p99 / idle median",
    ]
    heads += ["theory, equal lists", "theory, measured lists", "failed", "lateness p99 ms"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    for point in points:
        cells = [f"{point.load:.0%}", f"{point.rate:.2f}", f"{point.utilisation:.0%}", str(point.requests)]
        cells += [f"{point.p50_ms:.1f}", f"{point.p95_ms:.1f}", f"{point.p99_ms:.1f}"]
        cells += [f"{point.p99_low_ms:.1f} to {point.p99_high_ms:.1f}", f"{point.p99_ms / idle_ms:.2f}"]
        for theory_ms in (point.equal_p99_ms, point.single_p99_ms):
            cells.append("-" if theory_ms is None else f"{theory_ms / idle_ms:.2f}")
        lines.append("| " + " | ".join([*cells, str(point.failed), f"{point.lateness_p99_ms:.2f}"]) + " |")
    return "\n".join(lines)


def _loads(text: str) -> list[float]:
    loads = [float(part) for part in text.split(",")]
    if not all(0.01 <= load <= 0.99 for load in loads):
        raise argparse.ArgumentTypeError("expected shares of 0.01 to 0.99")
    return loads


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/service/curve.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add(
        "--loads",
        type=_loads,
        default="0.1,0.2,0.3,0.5,0.7,0.9",
        help="shares of the capacity, comma-separated",
    )
    add("--requests", type=int, default=400, help="requests of each load [400]")
    add("--products", type=int, default=50, help="products of a list [50]")
    add("--idle", type=int, default=100, help="lists one at a time, for the service time [100]")
    add("--capacity-s", type=float, default=8.0, help="seconds of closed loop, for the capacity [8]")
    add("--clients", type=int, default=4, help="clients of the closed loop [4]")
    add("--connections", type=int, default=64, help="kept-alive connections [64]")
    add("--timeout-s", type=float, default=60.0, help="an answer later than this is an error [60]")
    add("--seed", type=int, default=1, help="seed of the lists and of the arrival times [1]")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, the verdict and the JSON document; return the exit code."""
    options = _parser().parse_args(argv)
    machine = describe_machine()
    os.environ["SHELFRANK_CACHE_BYTES"] = "0"  # the lists repeat; a cache would answer them
    try:
        with started_service() as service:
            fresh_mb, _ = service.memory_mb()
            idle_s, capacity, points = run(lambda: measure(service.url, options))
            loaded_mb, most_mb = service.memory_mb()
    except ServiceError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    idle_ms = statistics.median(idle_s) * 1_000
    print(
        f"ready {service.ready_s:.2f} s after its start, holding {fresh_mb:.0f} MB; "
        f"{loaded_mb:.0f} MB after the load, {most_mb:.0f} MB at most"
    )
    print(
        f"idle: {idle_ms:.1f} ms a list of {options.products} (median of {len(idle_s)}); "
        f"capacity {capacity:.2f} lists/s ({options.clients} clients)\n"
    )
    print(format_table(points, idle_ms), end="\n\n")
    for point in points:
        if point.load == GOAL_LOAD:
            print(verdict(point, idle_ms))
    late = [point.load for point in points if point.lateness_p99_ms > MAX_LATENESS_MS]
    if late:
        print(f"VOID: the generator was late (p99 over {MAX_LATENESS_MS:g} ms) at loads {late}")
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before, commit {describe_commit()}"
    )
    document = {
        "benchmark": "curve",
        "void": bool(late),
        "ready_s": service.ready_s,
        "memory_mb": {"ready": fresh_mb, "after": loaded_mb, "most": most_mb},
        "idle_ms": idle_ms,
        "capacity": capacity,
        "points": [asdict(point) for point in points],
        "machine": machine,
        "versions": describe_versions(),
        "commit": describe_commit(),
        "options": vars(options),
    }
    print(json.dumps(document))
    return VOID if late else MEASURED


if __name__ == "__main__":
    sys.exit(main())
