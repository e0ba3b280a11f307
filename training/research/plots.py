"""Draw the report's figures as SVG text.

Knows matplotlib and numbers; does not know where the numbers come from.
Invariant: a plot is text that stands alone: no link, no script, no date.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# one colour per line, told apart by readers with any colour vision: Okabe and Ito, 2008
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
INCHES = (6.4, 3.8)

Points = Sequence[tuple[float, float, float, float]]  # x, y, low, high


def scaling(lines: Mapping[str, Points], levels: Mapping[str, float], xlabel: str, ylabel: str) -> str:
    """Curves with a band over a logarithmic x; `levels` are dashed horizontal lines."""
    figure = Figure(INCHES, layout="constrained")
    axes = figure.subplots()
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        x, y, low, high = np.array(sorted(points)).T
        axes.plot(x, y, marker="o", color=colour, label=name)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    for colour, (name, level) in zip(COLOURS[len(lines) :], levels.items(), strict=False):
        axes.axhline(level, linestyle="--", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _svg(figure)


def intervals(rows: Sequence[tuple[str, float, float, float]], xlabel: str) -> str:
    """One line per name with its value and interval, the first on top."""
    figure = Figure((INCHES[0], 0.8 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names, values, low, high = zip(*rows, strict=True)
    places = np.arange(len(rows))[::-1]
    around = np.abs(np.array([low, high]) - np.array(values))
    axes.errorbar(values, places, xerr=around, fmt="o", color=COLOURS[0], capsize=3)
    axes.set_yticks(places, names)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def frontier(lines: Mapping[str, Sequence[tuple[float, float, str]]], xlabel: str, ylabel: str) -> str:
    """Named points of quality (y) over latency (x, logarithmic), one colour per precision."""
    figure = Figure(INCHES, layout="constrained")
    axes = figure.subplots()
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        x, y, _ = zip(*points, strict=True)
        axes.scatter(x, y, color=colour, label=name)
        for each in points:
            axes.annotate(each[2], each[:2], xytext=(4, 4), textcoords="offset points", fontsize="x-small")
    axes.set_xscale("log")
    axes.margins(x=0.18)  # room for the last name
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _svg(figure)


def reliability(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], bins: int = 10) -> str:
    """Stated probability against observed share, per curve (probabilities [n], truth [n]); area by count."""
    figure = Figure((INCHES[1] + 0.6, INCHES[1]), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for colour, (name, (stated, truth)) in zip(COLOURS, curves.items(), strict=False):
        p, y = np.asarray(stated, np.float64), np.asarray(truth, np.float64)
        group = np.minimum((p * bins).astype(np.int64), bins - 1)
        count = np.bincount(group, minlength=bins)
        full = count > 0
        x = np.bincount(group, p, minlength=bins)[full] / count[full]
        observed = np.bincount(group, y, minlength=bins)[full] / count[full]
        axes.plot(x, observed, color=colour, linewidth=1)
        axes.scatter(x, observed, s=8 + 200 * count[full] / len(p), color=colour, alpha=0.6, label=name)
    axes.set_xlabel("stated probability")
    axes.set_ylabel("observed share")
    axes.legend(fontsize="small")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "shelfrank", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
