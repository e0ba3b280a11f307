"""Drives the service at up to ten times what it can do, and checks that it goes on doing what it can.

Knows budgets, coverage and the promises under overload; does not know how a request is sent.
Invariant: load is open-loop and bounded, the last line is one JSON document, and a check that does not hold is named.

    python benchmarks/service/overload.py                     both ways to fail: documents unscored, or an error
    python benchmarks/service/overload.py --control           an unbounded queue without budgets, which has to fail the checks

Exit codes: 0 all checks hold, 1 could not measure, 2 a check does not hold (with --control the other way round).
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

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

HOLDS, FAILED, BROKEN = 0, 1, 2
LOADS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
SLACK_MS: Final = 5.0  # an answer so much after its budget still counts
LEAST_GOODPUT: Final = 0.9  # of its peak, at twice the capacity and above
MOST_RECOVERY_S: Final = 2.0
LATE_SHARE: Final = 0.01  # of the accepted, which may be later still: the 99th percentile
UNBOUNDED: Final = {
    "SHELFRANK_DEFAULT_BUDGET_MS": "600000",
    "SHELFRANK_MAX_BUDGET_MS": "600000",
    "SHELFRANK_QUEUE_TOKENS": "100000000",
}


@dataclass(frozen=True, slots=True)
class Phase:
    """What came of one load. Times are milliseconds from the due time; rates are per second.

    `goodput` counts documents scored in answers in time, `accepted` answers with at least one of them. A refusal is
    an answer without any, or a 429 or 504.
    """

    load: float
    offered: float
    requests: int
    accepted: int
    full: int
    refused: int
    failed: int
    coverage: float
    goodput: float
    accepted_p50_ms: float | None
    accepted_p99_ms: float | None
    refused_p99_ms: float | None
    lateness_p99_ms: float


def summarise(
    samples: Sequence[Sample], *, load: float, seconds: float, products: int, budget_ms: float
) -> Phase:
    """Reduce the samples of a load to its figures."""
    times_ms = [(sample.done_s - sample.sent_s) * 1_000 for sample in samples]
    both = list(zip(samples, times_ms, strict=True))
    accepted = [(sample, ms) for sample, ms in both if sample.status == 200 and sample.share > 0]
    refused = [
        ms
        for sample, ms in both
        if (sample.status == 200 and not sample.share) or sample.status in {429, 504}
    ]
    in_time = [sample.share for sample, ms in accepted if ms <= budget_ms + SLACK_MS]
    accepted_ms = [ms for _, ms in accepted]
    return Phase(
        load=load,
        offered=len(samples) / seconds,
        requests=len(samples),
        accepted=len(accepted),
        full=sum(sample.share == 1.0 for sample, _ in accepted),
        refused=len(refused),
        failed=len(samples) - len(accepted) - len(refused),
        coverage=sum(sample.share for sample, _ in accepted) / max(1, len(samples)),
        goodput=sum(in_time) * products / seconds,
        accepted_p50_ms=percentile(accepted_ms, 0.5),
        accepted_p99_ms=percentile(accepted_ms, 0.99),
        refused_p99_ms=percentile(refused, 0.99),
        lateness_p99_ms=percentile([(s.sent_s - s.due_s) * 1_000 for s in samples], 0.99) or 0.0,
    )


def recovery_s(samples: Sequence[Sample], *, from_s: float, budget_ms: float) -> float:
    """Return how long after `from_s`, when the load fell, the last request was due that was not answered in full in time."""
    bad = [
        sample.due_s - from_s
        for sample in samples
        if sample.status != 200
        or sample.share < 1.0
        or (sample.done_s - sample.due_s) * 1_000 > budget_ms + SLACK_MS
    ]
    return max(bad, default=0.0)


def broken_promises(phases: Sequence[Phase], recovered_s: float, budget_ms: float) -> list[str]:
    """Return in words which promises did not hold, none if all did."""
    peak = max(phase.goodput for phase in phases)
    found = []
    for phase in phases:
        name = f"at {phase.load:g} times the capacity"
        if phase.load >= 2 and phase.goodput < LEAST_GOODPUT * peak:
            found.append(f"{name} goodput is {phase.goodput / peak:.0%} of its peak")
        if (phase.accepted_p99_ms or 0.0) > budget_ms + SLACK_MS:
            found.append(f"{name} the accepted requests' p99 is {phase.accepted_p99_ms:.0f} ms")
        if phase.failed:
            found.append(f"{name} {phase.failed} requests failed")
    if recovered_s > MOST_RECOVERY_S:
        found.append(f"it took {recovered_s:.1f} s to recover")
    return found


async def measure(url: str, options: argparse.Namespace, on_failure: str) -> dict[str, object]:
    """Drive all loads one after the other, and then half the capacity again; return the figures and what broke."""
    products = read_products()
    rng = random.Random(f"{options.seed}")  # noqa: S311 - load, not secrets
    wish = {"on_failure": on_failure} | ({} if options.control else {"budget_ms": options.budget_ms})
    bodies = [
        json.dumps(json.loads(body) | wish).encode() for body in make_bodies(products, options.products, rng)
    ]
    pool = Pool(url, options.connections, options.timeout_s)
    try:
        await pool.open()
        patient = [
            pool.payload("POST", "/v1/rerank", json.dumps(json.loads(body) | {"budget_ms": 60_000}).encode())
            for body in bodies
        ]
        capacity = await closed_loop(
            pool, patient, clients=4, duration_s=options.warmup_s, max_requests=20_000
        )
        print(f"{on_failure}: capacity {capacity:.1f} requests/s", file=sys.stderr, flush=True)
        payloads = [pool.payload("POST", "/v1/rerank", body) for body in bodies]
        phases = []
        for load in LOADS:
            due_times = poisson_times(capacity * load, options.duration_s, options.max_requests, rng)
            samples = await open_loop(pool, payloads, due_times, _coverage)
            phases.append(
                summarise(
                    samples,
                    load=load,
                    seconds=options.duration_s,
                    products=options.products,
                    budget_ms=options.budget_ms,
                )
            )
            print(phases[-1], file=sys.stderr, flush=True)
        due_times = poisson_times(capacity * 0.3, 2 * MOST_RECOVERY_S + 4, options.max_requests, rng)
        after = await open_loop(pool, payloads, due_times, _coverage)
    except OSError as error:
        raise ServiceError(f"nothing answers at {url}: {error}") from error
    finally:
        pool.close()
    recovered_s = recovery_s(after, from_s=after[0].due_s - due_times[0], budget_ms=options.budget_ms)
    return {
        "on_failure": on_failure,
        "capacity": capacity,
        "phases": [asdict(phase) for phase in phases],
        "recovery_s": recovered_s,
        "broken": broken_promises(phases, recovered_s, options.budget_ms),
    }


def _coverage(body: bytes) -> float:
    """Read the coverage of an answer; 0 of a refusal."""
    _, found, rest = body.partition(b'"coverage":')
    return float(rest.partition(b",")[0]) if found else 0.0


def format_table(way: dict[str, object]) -> str:
    """Return the figures of one way to fail as a Markdown table."""
    heads = ["load", "requests/s", "scored in time/s", "coverage", "accepted p50 ms", "accepted p99 ms"]
    heads += ["refused", "refused p99 ms", "lateness p99 ms"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    phases = way["phases"]
    assert isinstance(phases, list)
    for phase in phases:
        cells = [f"{phase['load']:g}x", f"{phase['offered']:.1f}", f"{phase['goodput']:.0f}"]
        cells += [f"{phase['coverage']:.1%}", _ms(phase["accepted_p50_ms"]), _ms(phase["accepted_p99_ms"])]
        cells += [f"{phase['refused'] / max(1, phase['requests']):.1%}", _ms(phase["refused_p99_ms"])]
        lines.append("| " + " | ".join([*cells, f"{phase['lateness_p99_ms']:.1f}"]) + " |")
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/service/overload.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add(
        "--control",
        action="store_true",
        help="a queue without a bound and no budgets: the checks have to fail",
    )
    add("--products", type=int, default=50, help="products of a list [50]")
    add("--budget-ms", type=float, default=300.0, help="budget of each request [300]")
    add("--duration-s", type=float, default=8.0, help="seconds of each load [8]")
    add("--warmup-s", type=float, default=5.0, help="seconds of closed-loop warm-up, for the capacity [5]")
    add("--max-requests", type=int, default=5_000, help="most requests of a load [5000]")
    add("--connections", type=int, default=512, help="kept-alive connections [512]")
    add("--timeout-s", type=float, default=60.0, help="an answer later than this is an error [60]")
    add("--seed", type=int, default=1, help="seed of the lists and of the arrival times [1]")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables and the JSON document, return the exit code."""
    options = _parser().parse_args(argv)
    machine = describe_machine()
    os.environ["SHELFRANK_CACHE_BYTES"] = "0"  # the lists repeat; a cache would answer them
    os.environ |= UNBOUNDED if options.control else {}
    ways = []
    try:
        for on_failure in ("degrade",) if options.control else ("degrade", "error"):
            with running_service() as url:
                ways.append(run(lambda url=url, way=on_failure: measure(url, options, way)))
    except ServiceError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    broken = [f"{way['on_failure']}: {promise}" for way in ways for promise in way["broken"]]  # type: ignore[attr-defined]
    for way in ways:
        print(
            f"on_failure={way['on_failure']}, recovered after {way['recovery_s']:.2f} s\n\n{format_table(way)}\n"
        )
    print("\n".join(broken) or "every promise holds")
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before, commit {describe_commit()}"
    )
    document = {
        "benchmark": "overload",
        "control": options.control,
        "budget_ms": options.budget_ms,
        "products": options.products,
        "ways": ways,
        "broken": broken,
        "machine": machine,
        "versions": describe_versions(),
        "commit": describe_commit(),
    }
    print(json.dumps(document))
    return HOLDS if bool(broken) == options.control else BROKEN


if __name__ == "__main__":
    sys.exit(main())
