"""Draws what benchmarks/service/overload.py printed: documents scored in time and latency over load.

Knows the JSON document of that benchmark; does not measure anything. Needs matplotlib, which the training extra has.
Invariant: nothing is drawn that is not in the documents.

    python benchmarks/service/overload_plot.py RESULT CONTROL docs/figures/overload.svg

RESULT and CONTROL hold what the benchmark printed without and with --control.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


def read_document(path: Path) -> dict[str, Any]:
    """Return the document of a printed run, which is its last line."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])
    return document


def draw(lines: Sequence[tuple[str, dict[str, Any]]], budget_ms: float) -> Figure:
    """Draw each run as a line: goodput on the left, the accepted requests' 99th percentile on the right."""
    mpl.rcParams["svg.hashsalt"] = "shelfrank"  # the same file for the same figures
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    goodput, latency = figure.subplots(1, 2)
    for name, way in lines:
        loads = [phase["load"] for phase in way["phases"]]
        goodput.plot(loads, [phase["goodput"] for phase in way["phases"]], marker="o", label=name)
        latency.plot(loads, [phase["accepted_p99_ms"] for phase in way["phases"]], marker="o", label=name)
    latency.axhline(budget_ms, color="grey", linestyle=":", label="budget")
    for axes, title in (
        (goodput, "documents scored in time, per second"),
        (latency, "p99 of accepted requests, ms"),
    ):
        axes.set_xscale("log")
        axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
        axes.set_xlabel("load, times the capacity")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    goodput.set_ylim(bottom=0)
    latency.set_yscale("log")
    goodput.legend(fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Read two runs and write the figure."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/service/overload_plot.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("control", type=Path)
    parser.add_argument("figure", type=Path)
    options = parser.parse_args(argv)
    result, control = read_document(options.result), read_document(options.control)
    ways = [(f"on_failure={way['on_failure']}", way) for way in result["ways"]]
    ways += [("unbounded queue, no budgets", way) for way in control["ways"]]
    draw(ways, result["budget_ms"]).savefig(options.figure, format="svg", metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
