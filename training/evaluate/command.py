"""Measure bundles and running services on judgements, side by side, with BM25 and the lists' own order beside them.

Knows options and files; does not know how a list is scored or a figure computed.
Invariant: everything is measured before the first file is written, and each file appears whole.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from training.data import given, judgments
from training.data.lists import JudgedList
from training.errors import DataError
from training.evaluate.remote import Service
from training.evaluate.systems import System, baselines, of_bundle, of_service
from training.evaluate.trec import qrels_file, run_file
from training.measure.comparison import Comparison
from training.measure.page import html, verdict

RESAMPLES = 2000
ERRORS = (
    "Calibration error: how far the probability of the most probable class is from how often it is right. Score error: how "
    "far scores are from what products turn out to be worth, which is 0, 0, 0.5 and 1 for the grades 0 to 3."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    several = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument(
        "--bundle", type=Path, **several, metavar="DIR", help="a bundle's folder; several may follow"
    )
    parser.add_argument("--url", **several, metavar="URL", help="a running service that answers /v1/rerank")
    given.arguments(parser)
    parser.add_argument("--split", default="", help="measure the rows alone whose column `split` says so")
    parser.add_argument(
        "--shortest",
        type=int,
        default=judgments.SHORTEST,
        help="judged products from which a list is measured",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write page, tables, runs and qrels there")
    service = parser.add_argument_group("services")
    service.add_argument("--model", default="", help="the model that a request names")
    service.add_argument("--key-file", type=Path, help="a file with the API key")
    service.add_argument(
        "--plain-texts", action="store_true", help="send each product as one text, not as fields"
    )


def run(options: argparse.Namespace) -> int:
    """Print the tables as Markdown, and write what --out asks for."""
    if not options.bundle and not options.url:
        raise DataError("nothing to evaluate: give --bundle DIR, --url URL, or several of them")
    corpus = given.given(options)
    chosen = given.given(options, options.split) if options.split else corpus
    lists = judgments.usable(chosen, options.shortest)
    if not lists:
        raise DataError(f"{given.file_of(options)}: no list has {options.shortest} products and two grades")
    if warning := judgments.few(chosen, options.shortest):
        print(f"warning: {warning}", file=sys.stderr)
    systems = _distinct(_ordered(options, lists, corpus))
    comparison = Comparison(
        lists,
        {each.name: each.scores for each in systems},
        {each.name: each.more for each in systems},
        RESAMPLES,
    )
    notes = [
        f"{len(lists)} queries with {sum(map(len, lists))} judged products, from {given.file_of(options).name}.",
        *([f"Careful: {warning}."] if warning else []),
        *([ERRORS] if any(each.more for each in systems) else []),
    ]
    title = f"{' and '.join(each.name for each in systems[:2])} on {given.file_of(options).stem}"
    told = markdown(comparison, title, notes)
    print(told)
    if options.out:
        files = {
            "evaluation.md": told,
            "evaluation.html": html(comparison, title, notes),
            "qrels.txt": qrels_file(lists),
        }
        files |= {f"run-{_slug(each.name)}.txt": run_file(lists, each.scores, each.name) for each in systems}
        _write(options.out, files)
    return 0


def markdown(comparison: Comparison, title: str, notes: Sequence[str]) -> str:
    """Return the page as Markdown."""
    verdicts = [verdict(comparison, name, comparison.reference) for name in comparison.others]
    return "\n\n".join(
        [f"## {title}", *notes, "\n".join(f"- {told}" for told in verdicts), comparison.markdown()]
    )


def _ordered(
    options: argparse.Namespace, lists: Sequence[JudgedList], corpus: Sequence[JudgedList]
) -> list[System]:
    """Return the systems, first the one to compare with: the first given of several, else the baseline of the one."""
    floors = baselines(lists, corpus)
    key = options.key_file.read_text(encoding="utf-8").strip() if options.key_file else ""
    services = (Service(url, options.model, key, options.plain_texts) for url in options.url)
    given = [
        *(of_bundle(folder, lists, RESAMPLES) for folder in options.bundle),
        *(of_service(service, lists, RESAMPLES) for service in services),
    ]
    return [*given, *floors] if len(given) > 1 else [floors[0], *given, *floors[1:]]


def _distinct(systems: Sequence[System]) -> list[System]:
    """Give systems of one name numbers."""
    named: dict[str, System] = {}
    for system in systems:
        names = chain([system.name], (f"{system.name} ({number})" for number in count(2)))
        name = next(name for name in names if name not in named)
        named[name] = replace(system, name=name)
    return list(named.values())


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", name).strip("-")


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, folder / name)
    print(f"wrote {', '.join(files)} in {folder}", file=sys.stderr)
