"""Write the report: one self-contained HTML page, and its tables as Markdown.

Knows finished runs and studies; trains and scores nothing but the shipped student.
Invariant: every figure is computed from files of runs; product texts appear in the HTML page alone, never in Markdown.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bundle.manifest import Calibration
from bundle.score import class_probabilities
from training.data.lists import LABELS, JudgedList, rankable, read_lists
from training.errors import StageError
from training.evaluate.evaluate import BIENCODER, TEACHER
from training.folders import read_json
from training.measure.figures import ratios
from training.measure.metrics import Interval, mean_interval, paired_interval
from training.recipe import load_recipe, load_table
from training.research import plots
from training.research.compare import Trained, of_dataset, read_variants, seed_means
from training.research.frontier import RESULT as FRONTIER
from training.research.study import load_study, student_scores
from training.sections.research import ReportRecipe, ShownRecipe
from training.stages import Run
from training.student import student

METRICS = ("ndcg@10", "ndcg", "pair accuracy")
Row = dict[str, Any]  # of quality.json
BRACKETS = "Brackets are 95 % bootstrap intervals over lists."
WORST = 8  # lists of the error analysis, per data set


@dataclass(frozen=True, slots=True)
class Part:
    """A section: Markdown text and table, and plots for the page."""

    title: str
    text: str
    table: list[list[str]]
    plots: tuple[str, ...] = ()


def load_report(path: Path) -> ReportRecipe:
    """Read a report's TOML file; RecipeError names the file and what is wrong in it."""
    return load_table(path, "report", ReportRecipe)


def run_report(path: Path, overrides: Sequence[str], weights: Mapping[str, str]) -> None:
    """Write the page and the Markdown; StageError names what has not been run."""
    told = load_report(path)
    run = Run(load_recipe(Path(told.recipe), overrides), weights)
    lists = rankable(
        read_lists(run.folder("data") / "pairs.parquet", told.split), run.recipe.evaluate.min_pairs
    )
    rows = read_json(run.folder("evaluate") / "quality.json")["rows"]
    rows = [row for row in rows if row["dataset"].endswith(f" {told.split}")]
    logits = student_scores(student.load(run.folder("distil")), lists)
    parts = [_models(rows)]
    parts += [
        _frontier(shown) if shown.kind == "frontier" else _study(shown, rows, lists, told)
        for shown in told.shown
    ]
    parts += [_calibration(run, lists, logits)]
    Path(told.html).parent.mkdir(parents=True, exist_ok=True)
    Path(told.html).write_text(page(told, parts, _errors(lists, logits)), encoding="utf-8")
    figures = _write_figures(parts, Path(told.figures)) if told.figures else {}
    beside = {
        part: [os.path.relpath(file, Path(told.markdown).parent) for file in files]
        for part, files in figures.items()
    }
    Path(told.markdown).write_text(markdown(told, parts, beside), encoding="utf-8")


def _write_figures(parts: Sequence[Part], folder: Path) -> dict[str, list[Path]]:
    """Write every plot as an SVG file named after its part; return the files by the part's title."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Path]] = {}
    for part in parts:
        name = re.sub(r"[^a-z0-9]+", "-", part.title.lower()).strip("-")
        for number, plot in enumerate(part.plots, start=1):
            file = folder / f"{name}-{number}.svg"
            file.write_text(plot, encoding="utf-8")
            found.setdefault(part.title, []).append(file)
    return found


def _models(rows: Sequence[Row]) -> Part:
    """Every model that the evaluation measured, a line each."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    metrics = (*METRICS, "auc exact")
    cells = {
        (row["model"], row["dataset"], row["metric"]): Interval(
            row["value"], row["low"], row["high"], row["lists"]
        )
        for row in rows
    }
    table = [["model", *(f"{dataset}, {metric}" for dataset in datasets for metric in metrics)]]
    models = dict.fromkeys(row["model"] for row in rows)
    for model in models:
        told_cells = [cells.get((model, dataset, metric)) for dataset in datasets for metric in metrics]
        table.append([model, *("" if cell is None else _cell(cell) for cell in told_cells)])
    drawn = []
    for dataset in datasets:
        known = [(m, cells.get((m, dataset, "ndcg@10"))) for m in models if " - " not in m]
        found = [(m, cell.value, cell.low, cell.high) for m, cell in known if cell is not None]
        drawn.append(plots.intervals(found, f"NDCG@10, {dataset}"))
    text = "Floors, baselines, the teachers and the student; differences are paired."
    return Part("Models", text, table, tuple(drawn))


def _study(shown: ShownRecipe, rows: Sequence[Row], lists: Sequence[JudgedList], told: ReportRecipe) -> Part:
    variants = read_variants(Path(shown.study), lists)
    reference = next((one for one in variants if one.name == shown.reference), variants[0])
    seeds = len(reference.scores)
    datasets = list(dict.fromkeys(judged.dataset for judged in lists))
    table = [["variant", "pairs", *(f"{d}, {m}" for d in datasets for m in (*METRICS, "ndcg@10 difference"))]]
    for one in variants:
        line = [one.name, f"{one.pairs:,.0f}"]
        for dataset in datasets:
            members, own, other = of_dataset(dataset, lists, one, reference)
            means = (seed_means(members, own, metric) for metric in METRICS)
            line += [_cell(mean_interval(*each, resamples=told.resamples)) for each in means]
            (left, sizes), (right, _) = (seed_means(members, each, "ndcg@10") for each in (own, other))
            same = one is reference
            line.append(
                ""
                if same
                else _cell(paired_interval(left, right, sizes, resamples=told.resamples), signed=True)
            )
        table.append(line)
    over = "One seed" if seeds == 1 else f"Means over {seeds} seeds"
    text = f"{shown.text}\n{over}; differences are paired with {reference.name}.".strip()
    drawn = []
    if shown.kind == "scaling":
        drawn = [
            _scaling(shown, dataset, lists, variants, _levels(rows, f"{dataset} {told.split}"))
            for dataset in datasets
        ]
    return Part(shown.title, text, table, tuple(drawn))


def _levels(rows: Sequence[Row], dataset: str) -> dict[str, float]:
    """NDCG@10 of the models that a student is drawn beside."""
    wanted = {"dataset": dataset, "metric": "ndcg@10"}
    known = {row["model"]: row["value"] for row in rows if wanted.items() <= row.items()}
    return {model: known[model] for model in (TEACHER, BIENCODER) if model in known}


def _scaling(
    shown: ShownRecipe,
    dataset: str,
    lists: Sequence[JudgedList],
    variants: Sequence[Trained],
    levels: Mapping[str, float],
) -> str:
    """Quality over the number of pairs learnt from, one line per prefix; a variant of no line is a level."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    flat = dict(levels)
    for one in variants:
        members, own = of_dataset(dataset, lists, one)
        each = [float(np.mean(ratios(members, scores)["ndcg@10"][0])) for scores in own.scores]
        mean = float(np.mean(each))
        line = next((name for name, prefix in shown.lines.items() if one.name.startswith(prefix)), "")
        if line:
            lines.setdefault(line, []).append((one.pairs, mean, min(each), max(each)))
        else:
            flat[one.name] = mean
    return plots.scaling(lines, flat, "pairs learnt from (band: seeds)", f"NDCG@10, {dataset}")


def _frontier(shown: ShownRecipe) -> Part:
    """Every student of a study in every precision: bytes, milliseconds and quality."""
    path = Path(load_study(Path(shown.study)).dir) / FRONTIER
    if not path.is_file():
        raise StageError(f"{path} is not there: run `python -m training frontier --recipe {shown.study}`")
    told = read_json(path)
    datasets = list(told["students"][0]["ndcg@10"])
    table = [["student", "precision", "MB", "ms", *(f"{dataset}, ndcg@10" for dataset in datasets)]]
    lines: dict[str, dict[str, list[tuple[float, float, str]]]] = {dataset: {} for dataset in datasets}
    for each in sorted(told["students"], key=lambda each: each["ms"]):
        cells = [each["ndcg@10"][dataset] for dataset in datasets]
        figures = [_cell(Interval(cell["value"], cell["low"], cell["high"], 0)) for cell in cells]
        size = f"{each['bytes'] / 1e6:.1f}"
        table.append([each["student"], each["precision"], size, f"{each['ms']:.1f}", *figures])
        for dataset, cell in zip(datasets, cells, strict=True):
            point = (each["ms"], cell["value"], each["student"])
            lines[dataset].setdefault(each["precision"], []).append(point)
    x = f"milliseconds for {told['list']} products, one thread"
    drawn = [plots.frontier(lines[dataset], x, f"NDCG@10, {dataset}") for dataset in datasets]
    return Part(shown.title, shown.text, table, tuple(drawn))


def _calibration(run: Run, lists: Sequence[JudgedList], logits: Sequence[np.ndarray]) -> Part:
    """Stated probability of `exact` against how often it is, per data set."""
    raw = (run.folder("calibrate") / "calibration.json").read_bytes()
    calibration = Calibration.model_validate_json(raw)
    curves = {}
    for dataset in dict.fromkeys(judged.dataset for judged in lists):
        chosen = [place for place, judged in enumerate(lists) if judged.dataset == dataset]
        stated = class_probabilities(np.concatenate([logits[place] for place in chosen]), calibration)[:, -1]
        truth = np.concatenate([np.array(lists[place].grades) for place in chosen]) == len(LABELS) - 1
        curves[dataset] = (stated, truth)
    text = "P(exact) of the shipped calibration against the share that is exact; area by count."
    return Part("Calibration", text, [], (plots.reliability(curves),))


def _errors(lists: Sequence[JudgedList], logits: Sequence[np.ndarray]) -> str:
    """The lists that the student orders worst, with its first five products, as HTML."""
    values = np.array(ratios(lists, logits)["ndcg@10"][0])
    out = []
    for dataset in dict.fromkeys(judged.dataset for judged in lists):
        chosen = [place for place in np.argsort(values) if lists[place].dataset == dataset][:WORST]
        for place in chosen:
            judged = lists[place]
            best = np.argsort(-logits[place], kind="stable")[:5]
            items = "".join(
                f"<li>{html.escape(judged.labels[i] or str(judged.grades[i]))}: "
                f"{html.escape(judged.products[i].title[:110])}</li>"
                for i in best
            )
            head = f"{html.escape(judged.query)} ({dataset}, NDCG@10 {values[place]:.2f})"
            out.append(f"<details><summary>{head}</summary><ol>{items}</ol></details>")
    return "<h2>The worst lists</h2><p>Label or grade, then the title.</p>" + "".join(out)


def _cell(interval: Interval, *, signed: bool = False) -> str:
    number: Callable[[float], str] = (lambda x: f"{x:+.3f}") if signed else (lambda x: f"{x:.3f}")
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def markdown(told: ReportRecipe, parts: Sequence[Part], figures: Mapping[str, Sequence[str]]) -> str:
    """The tables, and the plots as images: part's title -> paths from the Markdown's folder."""
    out = [f"# {told.title}", "", told.text, "", BRACKETS, ""]
    for part in parts:
        images = [f"![{part.title}]({file})" for file in figures.get(part.title, ())]
        if images and not part.table:
            out += [f"## {part.title}", "", part.text, ""]
        if part.table:
            head, *rows = (f"| {' | '.join(line)} |" for line in part.table)
            out += [f"## {part.title}", "", part.text, "", head, "|---" * len(part.table[0]) + "|", *rows, ""]
        if images:
            out += [*images, ""]
    return "\n".join(out)


STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; white-space: nowrap }
figure { display: inline-block; margin: .5rem 1rem .5rem 0 } svg { max-width: 100%; height: auto }"""


def page(told: ReportRecipe, parts: Sequence[Part], tail: str) -> str:
    """One page with everything in it: no script, no link, no other file."""
    body = []
    for part in parts:
        body.append(f"<h2>{html.escape(part.title)}</h2><p>{html.escape(part.text)}</p>")
        body += [f"<figure>{plot}</figure>" for plot in part.plots]
        if part.table:
            head, *rows = part.table
            lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
            lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
            body.append("<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>")
    name, text = html.escape(told.title), html.escape(told.text)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style></head>'
        f"<body><h1>{name}</h1><p>{text}</p><p>{BRACKETS}</p>{''.join(body)}{tail}</body></html>\n"
    )
