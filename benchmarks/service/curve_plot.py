"""Draws what benchmarks/service/curve.py printed: latency over load, in units of the idle service's median.

Knows the JSON document of that benchmark and queueing theory; does not measure anything. Needs matplotlib, which the training extra has.
Invariant: every dot is in the documents, and lines without dots are theory.

    python benchmarks/service/curve_plot.py docs/figures/load.svg RESULT [RESULT ...]

Each RESULT holds what one run of the benchmark printed; each is drawn in units of its own idle median.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.service.curve import GOAL
from benchmarks.service.overload_plot import read_document
from benchmarks.service.queueing import equal_times_quantile

SHARES: Final = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99"}
_THEORY_LOADS: Final = [number / 100 for number in range(1, 94, 2)]


def in_service_times(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return every point of every run by load, its times divided by its run's idle median."""
    points = [
        {"load": point["load"]}
        | {name: point[name] / document["idle_ms"] for name in (*SHARES, "p99_low_ms", "p99_high_ms")}
        for document in documents
        for point in document["points"]
    ]
    return sorted(points, key=lambda point: point["load"])


def draw(points: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the measured percentiles as dots, the p99 with its interval, and the theory of one server beside them."""
    mpl.rcParams["svg.hashsalt"] = "shelfrank"  # the same file for the same figures
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    loads = [100 * point["load"] for point in points]
    for name, label in SHARES.items():
        axes.plot(loads, [point[name] for point in points], marker="o", label=label)
    axes.vlines(
        loads,
        [point["p99_low_ms"] for point in points],
        [point["p99_high_ms"] for point in points],
        color="C2",
        alpha=0.4,
        linewidth=3,
    )
    theory = [equal_times_quantile(load, 0.99) for load in _THEORY_LOADS]
    label = "p99 of one server, equal lists (M/D/1)"
    axes.plot([100 * load for load in _THEORY_LOADS], theory, color="C2", linestyle="--", label=label)
    axes.axhline(GOAL, color="grey", linestyle=":", label=f"{GOAL:g} service times")
    axes.set_xlabel("load, % of the capacity")
    axes.set_ylabel("latency, idle medians")
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 3, 5, 10, 20, 30], ["1", "2", "3", "5", "10", "20", "30"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Read the runs and write the figure."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/service/curve_plot.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("figure", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    options = parser.parse_args(argv)
    points = in_service_times([read_document(path) for path in options.results])
    draw(points).savefig(options.figure, format="svg", metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
