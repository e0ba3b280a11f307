"""Compares the engine with the least time that this machine's arithmetic units need for the same lists.

Knows peaks, bounds and the service's engine; does not know requests.
Invariant: peaks and lists take turns in one run, and the best peak that was seen sets the limit.

The engine is what the service computes with: its graph, its scheduler's runs, its threads; lists are tokenized before.
The profile is that of ONNX Runtime, whichever engine is measured.

    python benchmarks/engine/limit.py                        models/default and models/tiny
    python benchmarks/engine/limit.py --shapes L2-H256,L4-H256,L3-H384     random weights; needs torch
    python benchmarks/engine/limit.py --profile              also where the time goes, operator by operator

Exit codes: 0 measured, 1 could not measure, 2 an engine reaches less than --least says.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
import service  # noqa: F401  first: it keeps the runtime from reporting usage
from benchmarks.engine import operators
from benchmarks.engine.bound import Shape, count
from benchmarks.engine.peak import Machine, explore, rate
from benchmarks.engine.workload import Recorder, make_lists, open_bundle, read_shape, running
from benchmarks.shared.target import describe_commit, describe_machine, describe_versions
from bundle import Bundle
from bundle.rows import Rows, padded_length
from bundle.verify import Session
from service.engine.sessions import CpuSession, why_not_native
from service.native.session import NativeSession
from service.process.cpus import usable_cpus

MEASURED, FAILED, BELOW = 0, 1, 2
LEAST: Final = {"wide": 0.6, "narrow": 0.4}  # of the CLS-only limit, hidden 256 and above, and below
WIDE: Final = 256
INTEGER_PRODUCT: Final = "MatMulIntegerToFloat"
WARM_UP: Final = 3
AT_ONCE: Final = 3  # lists that an engine is timed over in its turn, after one that wakes its threads
READS_EVERY: Final = 8  # rounds


@dataclass(frozen=True, slots=True)
class Graph:
    """Something to measure: a graph in a session, the bundle whose rows it takes, and its lists."""

    name: str
    shape: Shape
    model: bytes
    bundle: Bundle
    session: Session
    lists: Sequence[Rows]


@dataclass(frozen=True, slots=True)
class Line:
    """One graph on so many threads. Times are milliseconds a list, medians unless named otherwise.

    `limits_ms` is the least time by kind of arithmetic; `share` is the CLS-only int8 limit over the median, `best_share`
    over the tenth percentile, which a busy machine spoils less.
    """

    graph: str
    shape: str
    threads: int
    real_tokens: float
    padded_tokens: float
    weights_mb: float
    limits_ms: dict[str, float]
    p10_ms: float
    p50_ms: float
    share: float
    best_share: float
    goal: float


@dataclass(frozen=True, slots=True)
class Peaks:
    """The best rate of each kind that was seen, by threads: operations or bytes a second."""

    arithmetic: Mapping[int, Mapping[str, float]]
    reads: Mapping[int, Mapping[str, float]]


def measure(machine: Machine, graphs: Sequence[Graph], rounds: int) -> tuple[Peaks, list[Line]]:
    """Let every peak, and every graph on every number of threads, take its turn in each round."""
    threads = sorted({1, usable_cpus()})
    works = {**machine.arithmetic, **machine.reads}
    seen: dict[tuple[int, str], list[float]] = {(n, name): [] for n in threads for name in works}
    times_s: dict[tuple[int, int], list[float]] = {}
    with ExitStack() as stack:
        engines = {
            (number, n): stack.enter_context(running(graph.bundle, graph.session, n))
            for number, graph in enumerate(graphs)
            for n in threads
        }
        for turn in range(WARM_UP + rounds):
            for (n, name), rates in seen.items():
                if name in machine.arithmetic or turn % READS_EVERY == 0:
                    rates.append(rate(works[name], n))
            for (number, n), seconds in engines.items():
                lists = graphs[number].lists
                chosen = [lists[(turn + step) % len(lists)] for step in range(1 + AT_ONCE)]
                took_s = [seconds(rows) for rows in chosen][1:]
                if turn >= WARM_UP:
                    times_s.setdefault((number, n), []).extend(took_s)
    best = {key: max(rates) for key, rates in seen.items()}
    peaks = Peaks(
        {n: {kind: best[n, kind] for kind in machine.arithmetic} for n in threads},
        {n: {place: best[n, place] for place in machine.reads} for n in threads},
    )
    lines = [_line(graphs[number], n, peaks.arithmetic[n], times) for (number, n), times in times_s.items()]
    return peaks, lines


def _line(graph: Graph, threads: int, peaks: Mapping[str, float], times_s: Sequence[float]) -> Line:
    lists = graph.lists
    lengths = [rows.lengths for rows in lists]
    longest = graph.bundle.manifest.text.max_length
    full = [count(graph.shape, each, cls_only=False) for each in lengths]
    lean = [count(graph.shape, each, cls_only=True) for each in lengths]
    limits = {kind: statistics.mean(each.seconds(peaks, kind) for each in full) for kind in peaks}
    limits["int8, CLS-only"] = statistics.mean(each.seconds(peaks, "int8") for each in lean)
    ordered = sorted(times_s)
    p50_s, p10_s = statistics.median(ordered), ordered[len(ordered) // 10]
    return Line(
        graph=graph.name,
        shape=str(graph.shape),
        threads=threads,
        real_tokens=statistics.mean(map(sum, lengths)),
        padded_tokens=statistics.mean(sum(padded_length(n, longest) for n in each) for each in lengths),
        weights_mb=graph.shape.weights / 1e6,
        limits_ms={kind: limit_s * 1_000 for kind, limit_s in limits.items()},
        p10_ms=p10_s * 1_000,
        p50_ms=p50_s * 1_000,
        share=limits["int8, CLS-only"] / p50_s,
        best_share=limits["int8, CLS-only"] / p10_s,
        goal=LEAST["wide" if graph.shape.hidden >= WIDE else "narrow"],
    )


def format_peaks(peaks: Peaks) -> str:
    """Return the peaks as a Markdown table."""
    threads = sorted(peaks.arithmetic)
    heads = ["", *(f"{n} thread{'s' * (n > 1)}" for n in threads)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(threads)]
    for kind in peaks.arithmetic[threads[0]]:
        cells = [f"{peaks.arithmetic[n][kind] / 1e9:.0f}" for n in threads]
        lines.append(f"| {kind}, 10^9 operations/s | " + " | ".join(cells) + " |")
    for place in peaks.reads[threads[0]]:
        cells = [f"{peaks.reads[n][place] / 1e9:.0f}" for n in threads]
        lines.append(f"| reads from {place}, GB/s | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_table(lines: Sequence[Line]) -> str:
    """Return limits and engine as a Markdown table, milliseconds a list."""
    kinds = list(lines[0].limits_ms)
    heads = ["graph", "shape", "threads", "tokens, padded", *(f"limit {kind}" for kind in kinds)]
    heads += ["engine p10", "engine p50", "of the CLS-only limit", "goal"]
    out = ["| " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
    for line in lines:
        cells = [line.graph, line.shape, str(line.threads)]
        cells += [f"{line.real_tokens:.0f}, {line.padded_tokens:.0f}"]
        cells += [f"{line.limits_ms[kind]:.2f}" for kind in kinds]
        cells += [f"{line.p10_ms:.2f}", f"{line.p50_ms:.2f}"]
        cells += [f"{line.share:.0%} (at p10 {line.best_share:.0%})", f"{line.goal:.0%}"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def open_graphs(bundles: Sequence[str], shapes: Sequence[str], options: argparse.Namespace) -> list[Graph]:
    """Open the bundles, and random graphs of the shapes, which take the first bundle's rows."""
    graphs = []
    size, lists, seed, engine = options.products, options.lists, options.seed, options.engine
    for name in bundles:
        bundle, session = open_bundle(name, engine=engine)
        model = bundle.files[bundle.manifest.graph(None).file]
        rows = make_lists(bundle, size, lists, seed)
        graphs.append(Graph(name, read_shape(model), model, bundle, session, rows))
    if shapes:
        from benchmarks.engine.shapes import int8_graph, parse_shape  # noqa: PLC0415  torch is not everywhere
        from training.export.layout import encoder_layout  # noqa: PLC0415  nor is onnx

        bundle, rows = graphs[0].bundle, graphs[0].lists
        for name in shapes:
            shape = parse_shape(name)
            model = int8_graph(shape, bundle.manifest.text, rows[0])
            layout = encoder_layout(model)
            native = not why_not_native(engine, layout)
            opened = NativeSession(layout, model) if native else CpuSession(model)
            graphs.append(Graph("random weights", shape, model, bundle, opened, rows))
    return graphs


def describe_products(graph: Graph, spent: Sequence[operators.Spent], peak: float) -> str:
    """Say how near one thread's peak the products by weights come, and what they would leave of the limit alone."""
    longest = graph.bundle.manifest.text.max_length
    lists = [rows.lengths for rows in graph.lists]
    padded = [[padded_length(length, longest) for length in lengths] for lengths in lists]
    done = statistics.mean(count(graph.shape, lengths, cls_only=True).linear for lengths in padded)
    real = statistics.mean(count(graph.shape, lengths, cls_only=True).linear for lengths in lists)
    took_s = sum(row.ms for row in spent if row.operator == INTEGER_PRODUCT) / 1_000
    return (
        f"{INTEGER_PRODUCT}: {done / 1e9:.2f} * 10^9 operations a list, padding included, in {took_s * 1_000:.2f} ms are "
        f"{done / took_s / peak:.0%} of the int8 peak; if all other operators took no time, {real / took_s / peak:.0%} "
        f"of the limit by weights would be reached"
    )


def profile(graph: Graph) -> list[operators.Spent]:
    """Say where the time of a graph goes, on the runs that all workers together would make."""
    recorder = Recorder(CpuSession(graph.model), [])
    with running(graph.bundle, recorder, usable_cpus()) as seconds:
        for rows in graph.lists:
            seconds(rows)
    return operators.profile(graph.model, recorder.seen, lists=len(graph.lists))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/engine/limit.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--bundles", default="default,tiny", help="bundles of models/, comma-separated [default,tiny]")
    add("--shapes", default="", help="random graphs beside them, such as L2-H256,L4-H256; needs torch")
    add("--products", type=int, default=50, help="products of a list [50]")
    add("--lists", type=int, default=20, help="distinct lists [20]")
    add("--rounds", type=int, default=40, help="turns of everything [40]")
    add("--seed", type=int, default=1, help="seed of the lists [1]")
    engines = ("auto", "onnxruntime", "native")
    add("--engine", choices=engines, default="auto", help="what computes the graphs [auto]")
    add("--profile", action="store_true", help="say where the time goes, operator by operator")
    add("--least", action="store_true", help="leave with code 2 if the goal is missed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables and the JSON document, return the exit code."""
    options = _parser().parse_args(argv)
    machine = describe_machine()
    shapes = [name for name in options.shapes.split(",") if name]
    try:
        graphs = open_graphs(options.bundles.split(","), shapes, options)
    except (ImportError, ValueError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    with tempfile.TemporaryDirectory() as folder:
        units = explore(Path(folder))
        peaks, lines = measure(units, graphs, options.rounds)
    print(format_peaks(peaks), format_table(lines), sep="\n\n")
    profiles = {}
    for graph in graphs if options.profile else ():
        spent = profiles[f"{graph.name} {graph.shape}"] = profile(graph)
        print(f"\n{graph.name} {graph.shape}, one thread:\n\n{operators.format_table(spent)}\n")
        print(describe_products(graph, spent, peaks.arithmetic[1]["int8"]))
    missed = [line for line in lines if line.share < line.goal]
    print()
    print(*units.notes, sep="\n", end="\n" * bool(units.notes))
    print(
        *(f"{line.graph} {line.shape}, {line.threads} thread(s): below {line.goal:.0%}" for line in missed),
        sep="\n",
    )
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before, commit {describe_commit()}"
    )
    document = {
        "benchmark": "limit",
        "method": units.method,
        "notes": units.notes,
        "peaks": asdict(peaks),
        "lines": [asdict(line) for line in lines],
        "profiles": {name: [asdict(row) for row in spent] for name, spent in profiles.items()},
        "machine": machine,
        "versions": describe_versions(),
        "commit": describe_commit(),
        "options": vars(options),
    }
    print(json.dumps(document))
    return BELOW if missed and options.least else MEASURED


if __name__ == "__main__":
    sys.exit(main())
