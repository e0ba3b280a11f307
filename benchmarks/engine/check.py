"""Guards the engine's speed: how many times faster than plain ONNX Runtime it is, against the last time it was recorded.

Knows the engine, the plain graph and a file of records; does not know requests.
Invariant: it fails only if the whole interval of the ratio lies below what the last record of such a machine allows.

    python benchmarks/engine/check.py                        compare with the last record in benchmarks/engine/history.jsonl
    python benchmarks/engine/check.py --record               and add this run to it

Times differ from machine to machine and from hour to hour, ratios of two programs that take turns hardly do. On a machine
of a kind that has no record the run is recorded, and nothing is compared.

Exit codes: 0 as fast as before, or recorded; 1 could not measure; 2 slower.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
import service  # noqa: F401  first: it keeps the runtime from reporting usage
from benchmarks.engine.baseline import open_baseline
from benchmarks.engine.workload import make_lists, open_bundle, read_shape, running
from benchmarks.shared.target import describe_commit, describe_machine, describe_versions
from bundle.rows import Rows, assemble
from service.process.cpus import usable_cpus

HOLDS, FAILED, SLOWER = 0, 1, 2
HISTORY: Final = Path(__file__).with_name("history.jsonl")
MARGIN: Final = 0.10  # of the recorded ratio, that a run's interval may lie below it
AT_ONCE: Final = 3  # lists that are timed in a turn, after one that wakes the threads
PAUSE_S: Final = 0.1
_RESAMPLES: Final = 2_000
_CPUINFO: Final = ("model name", "cpu family", "model", "CPU implementer", "CPU part")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of the plain runtime over median of the engine, and the interval it has with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio_of(plain_s: Sequence[float], engine_s: Sequence[float], seed: int = 0) -> Ratio:
    """Return the ratio of the medians; the interval by drawing rounds anew, both times of a round together.

    >>> ratio_of([4.0, 4.0, 4.0], [2.0, 2.0, 2.0])
    Ratio(value=2.0, low=2.0, high=2.0)
    """
    plain, engine = np.asarray(plain_s), np.asarray(engine_s)
    drawn = np.random.default_rng(seed).integers(0, len(plain), (_RESAMPLES, len(plain)))
    ratios = np.median(plain[drawn], axis=1) / np.median(engine[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Ratio(float(np.median(plain) / np.median(engine)), float(low), float(high))


def is_slower(now: Ratio, before: float, margin: float = MARGIN) -> bool:
    """Say whether even the upper end of the interval is more than `margin` below the ratio of before.

    >>> is_slower(Ratio(2.5, 2.4, 2.6), 3.0), is_slower(Ratio(2.5, 2.3, 2.8), 3.0)
    (True, False)
    """
    return now.high < (1 - margin) * before


def machine_kind() -> dict[str, object]:
    """Return what makes two machines comparable: the processor, by number too as names are vague, and its cores."""
    found: dict[str, object] = {"cores": usable_cpus()}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPUINFO:
                found.setdefault(name.strip(), value.strip())
    return found


def last_record(history: Path, *, kind: Mapping[str, object], measured: str) -> Record | None:
    """Return the last record of a machine of that kind and of the same thing measured."""
    if not history.exists():
        return None
    records: list[Record] = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    alike = [record for record in records if record["kind"] == kind and record["measured"] == measured]
    return alike[-1] if alike else None


def measure(
    lists: Sequence[Rows],
    plain: Callable[[Rows], object],
    engine: Callable[[Rows], object],
    rounds: int,
) -> tuple[list[float], list[float]]:
    """Let both compute some lists in turns, the one first and then the other; return the seconds of each.

    A turn begins with a pause, since the plain runtime's threads go on spinning for a while and would take a core from
    the engine, and with a list that is not timed, which wakes the threads.
    """
    times_s: tuple[list[float], list[float]] = ([], [])
    for turn in range(1 + rounds):
        chosen = [lists[(turn + step) % len(lists)] for step in range(1 + AT_ONCE)]
        for which in (0, 1) if turn % 2 else (1, 0):
            time.sleep(PAUSE_S)
            took_s = [_timed((plain, engine)[which], rows) for rows in chosen]
            if turn:
                times_s[which].append(statistics.mean(took_s[1:]))
    return times_s


def _timed(compute: Callable[[Rows], object], rows: Rows) -> float:
    began_s = time.perf_counter()
    compute(rows)
    return time.perf_counter() - began_s


def run(options: argparse.Namespace) -> Record:
    """Measure and return the run as a record."""
    bundle, session = open_bundle(options.bundle)
    shape = read_shape(bundle.files[bundle.manifest.graph(None).file])
    lists = make_lists(bundle, options.products, options.lists, seed=1)
    baseline = open_baseline(shape, bundle.manifest.text.vocabulary, usable_cpus())
    template = bundle.manifest.text.template
    with running(bundle, session, usable_cpus()) as engine:
        plain_s, engine_s = measure(
            lists, lambda rows: baseline.run(None, assemble(rows, template)), engine, options.rounds
        )
    ratio = ratio_of(plain_s, engine_s)
    return {
        "recorded": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": describe_commit(),
        "measured": f"{options.bundle} {shape}, lists of {options.products}",
        "ratio": round(ratio.value, 4),
        "low": round(ratio.low, 4),
        "high": round(ratio.high, 4),
        "rounds": options.rounds,
        "plain_ms": round(statistics.median(plain_s) * 1_000, 3),
        "engine_ms": round(statistics.median(engine_s) * 1_000, 3),
        "kind": machine_kind(),
        "versions": describe_versions(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/engine/check.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--bundle", default="default", help="bundle of models/ [default]")
    add("--products", type=int, default=50, help="products of a list [50]")
    add("--lists", type=int, default=20, help="distinct lists [20]")
    add("--rounds", type=int, default=30, help="turns of each of the two [30]")
    add("--history", type=Path, default=HISTORY, help="file of the records [benchmarks/engine/history.jsonl]")
    add("--record", action="store_true", help="add this run to the records")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, compare, record if asked to or if there is nothing to compare with; return the exit code."""
    options = _parser().parse_args(argv)
    machine = describe_machine()
    try:
        record = run(options)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    before = last_record(options.history, kind=record["kind"], measured=record["measured"])
    now = Ratio(record["ratio"], record["low"], record["high"])
    print(
        f"{record['measured']}: engine {record['engine_ms']} ms, plain runtime {record['plain_ms']} ms, times {now}"
    )
    slower = before is not None and is_slower(now, before["ratio"])
    if before is None:
        print("no record of such a machine: nothing to compare with, this run is recorded")
    else:
        verdict = f"SLOWER by more than {MARGIN:.0%}" if slower else f"no slower than {MARGIN:.0%} below it"
        print(f"last record {before['ratio']:.3f} at {before['commit']} ({before['recorded']}): {verdict}")
        if before["versions"] != record["versions"]:
            print(f"the record's versions differ: {before['versions']}")
    if options.record or before is None:
        with options.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before")
    print(json.dumps({"benchmark": "check", "slower": slower, "margin": MARGIN, "before": before, **record}))
    return SLOWER if slower else HOLDS


if __name__ == "__main__":
    sys.exit(main())
