"""Teaches a bundle what a shop's judgements or clicks say, and writes the new one only if held-out queries gain by it."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bundle.store import SHIPPED, Bundle
from bundle.text import Product
from training.cpus import threads_for
from training.data import given, judgments
from training.data.clicks import CAVEAT
from training.data.lists import JudgedList, digest
from training.errors import DataError, StageError
from training.evaluate.systems import baselines
from training.measure.comparison import Comparison
from training.measure.page import html, verdict
from training.pack.target import check_names, free_target
from training.student.student import Student
from training.tune.base import open_bundle, student_of
from training.tune.choose import folds_of
from training.tune.folds import Held, hold_out, learn_all
from training.tune.learn import Settings
from training.tune.lessons import Material, prepare
from training.tune.top import Top
from training.tune.write import AFTER, BEFORE, Tuned, write

LAYERS = 2  # that are trained, of the last ones
DEFAULTS = Settings()
LEAST_LISTS = 5  # below it nothing can be held out


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add(
        "--from",
        dest="base",
        type=Path,
        default=None,
        metavar="DIR",
        help="the bundle to begin from (default: the one that ships)",
    )
    add("--name", default="shop", help="the new bundle's name (default: %(default)s)")
    add("--version", default="1", help="its version (default: %(default)s)")
    add(
        "--out",
        type=Path,
        default=Path("runs/tune"),
        metavar="DIR",
        help="where the bundle's folder and the report go (default: %(default)s)",
    )
    given.arguments(parser)
    add("--replace", action="store_true", help="put it in the place of a bundle of that name")
    add("--force", action="store_true", help="write the bundle even if held-out queries do not gain by it")
    add(
        "--epochs",
        type=int,
        default=DEFAULTS.epochs,
        help="passes over the lists at most (default: %(default)s)",
    )
    add(
        "--learning-rate", type=float, default=DEFAULTS.learning_rate, help="peak rate (default: %(default)s)"
    )
    add(
        "--closeness",
        type=float,
        default=DEFAULTS.closeness,
        help="weight of staying near the old scores (default: %(default)s)",
    )
    add("--threads", type=int, default=0, help="CPU threads (default: as many as CPUs are free)")
    add("--seed", type=int, default=1)


@dataclass(frozen=True, slots=True)
class Shop:
    """What was read: lists that can be learnt from, every product of them, and what to be careful about."""

    lists: Sequence[JudgedList]
    products: Sequence[Product]
    notes: Sequence[str]


def run(options: argparse.Namespace) -> int:
    """Measure on held-out queries and write the report; the bundle too, if it is better or forced."""
    check_names(options.name, options.version)
    target = free_target(options.out, options.name, replace=options.replace)
    settings = _settings(options)
    shop = _shop(options)
    bundle = open_bundle(options.base or _shipped())
    _set_threads(options.threads)
    student = student_of(bundle)
    scratch = options.out / f".{options.name}-{_key(bundle, shop, settings, options.seed)}"
    scratch.mkdir(parents=True, exist_ok=True)
    top = Top(student, min(LAYERS, len(student.model.bert.encoder.layer)))
    base = top.copied()
    material = _prepared(student, top, shop, options.seed)
    queries = [judged.query for judged in shop.lists]
    folds = folds_of(queries, sum(map(len, shop.lists)), options.seed)
    held = hold_out(top, base, material, folds, settings, scratch=scratch, seed=options.seed)
    comparison = _compared(material, held, shop)
    told = verdict(comparison, AFTER, BEFORE)
    notes = [
        *shop.notes,
        f"{BEFORE.capitalize()} is {bundle.manifest.name} {bundle.manifest.version} ({bundle.id[:12]}).",
    ]
    report = _report(options, comparison, told, notes)
    if comparison.paired(AFTER, BEFORE).low <= 0 and not options.force:
        raise StageError(
            f"{told} No bundle was written; {report} shows each query. More judged queries may show a gain; "
            "--force writes the bundle as it is"
        )
    learn_all(top, base, material, settings, held.best, scratch=scratch, seed=options.seed)
    tuned = Tuned(bundle, student, shop.lists, comparison, settings, held.best, told, notes)
    made = write(tuned, options.out, options.name, options.version, options.seed)
    shutil.rmtree(scratch)
    print(told)
    print(f"bundle {made.id[:12]} in {target}, report in {report}; serve it by")
    print(f"python -m service --models-root {options.out} --bundle {options.name}")
    return 0


def _shipped() -> Path:
    """Return the default bundle: the clone's, or that of the installed package."""
    own = Path("models/default")
    return own if own.exists() else SHIPPED / "default"


def _set_threads(asked: int) -> None:
    threads, told = threads_for(asked)
    torch.set_num_threads(threads)
    if told:
        print(told, file=sys.stderr)


def _settings(options: argparse.Namespace) -> Settings:
    if options.epochs < 1 or not 0 < options.learning_rate < 1 or options.closeness < 0:
        raise StageError("--epochs: 1 or more; --learning-rate: between 0 and 1; --closeness: 0 or more")
    return Settings(epochs=options.epochs, learning_rate=options.learning_rate, closeness=options.closeness)


def _shop(options: argparse.Namespace) -> Shop:
    """Read judgements or clicks, say what few lists mean, and refuse what nothing can be held out of."""
    read = given.given(options)
    lists = judgments.usable(read)
    if len(lists) < LEAST_LISTS:
        raise DataError(
            f"only {len(lists)} of {len(read)} lists have two products of different grades; tuning holds queries out, and "
            f"needs {LEAST_LISTS} such lists at the least, better 50"
        )
    notes = [f"{len(lists)} queries with {sum(map(len, lists))} products."]
    if warning := judgments.few(read):
        notes.append(f"Careful: {warning}.")
        print(f"warning: {warning}", file=sys.stderr)
    if options.clicks:
        notes.append(CAVEAT)
    distinct = dict.fromkeys(product for judged in read for product in judged.products)
    return Shop(lists, list(distinct), notes)


def _prepared(student: Student, top: Top, shop: Shop, seed: int) -> list[Material]:
    started = time.monotonic()
    material = prepare(student, top, shop.lists, shop.products, seed)
    print(f"{len(shop.lists)} lists read by the model in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return material


def _compared(material: Sequence[Material], held: Held, shop: Shop) -> Comparison:
    """Put the held-out lists before and after side by side, with BM25 and the lists' own order."""
    lists = [material[place].judged for place in held.places]
    before = [material[place].logits[: len(material[place].judged)] for place in held.places]
    floors = {system.name: system.scores for system in baselines(lists, shop.lists)}
    return Comparison(lists, {BEFORE: before, AFTER: held.logits} | floors)


def _report(options: argparse.Namespace, comparison: Comparison, told: str, notes: Sequence[str]) -> Path:
    """Write the page and the tables beside the bundle's folder, and return the page's path."""
    title = f"{options.name}: before and after tuning, on held-out queries"
    page, tables = (options.out / f"{options.name}-report.{ending}" for ending in ("html", "md"))
    page.write_text(html(comparison, title, notes), encoding="utf-8")
    text = "\n\n".join([f"# {title}", told, *notes, comparison.markdown()])
    tables.write_text(text, encoding="utf-8")
    return page


def _key(bundle: Bundle, shop: Shop, settings: Settings, seed: int) -> str:
    """Name what a training depends on, so that a killed one goes on and another begins anew."""
    told = json.dumps([bundle.id, digest(shop.lists), asdict(settings), seed])
    return hashlib.sha256(told.encode()).hexdigest()[:12]
