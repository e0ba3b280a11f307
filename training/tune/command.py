"""Teaches a bundle what a shop's judgements or clicks say, and writes the new one only if held-out queries gain by it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bundle.manifest import is_name
from bundle.store import Bundle
from bundle.text import Product
from training.data import judgments
from training.data.clicks import CAVEAT, read_clicks
from training.data.lists import JudgedList
from training.data.sources import FIELDS
from training.data.tables import read_lines
from training.errors import DataError, StageError
from training.evaluate.systems import baselines
from training.measure.comparison import Comparison
from training.measure.page import html, verdict
from training.student.student import Student
from training.tune.base import open_bundle, student_of
from training.tune.choose import folds_of
from training.tune.folds import Held, hold_out
from training.tune.learn import Settings, learn
from training.tune.lessons import Material, prepare
from training.tune.top import Top
from training.tune.write import Tuned, write

LAYERS = 2  # that are trained, of the last ones
LEAST_LISTS = 5  # below it nothing can be held out
BEFORE, AFTER = "before", "after"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("--from", dest="base", type=Path, default=Path("models/default"), metavar="DIR", help="the bundle to begin from (default: %(default)s)")
    add("--name", default="shop", help="the new bundle's name (default: %(default)s)")
    add("--version", default="1", help="its version (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/tune"), metavar="DIR", help="where the bundle's folder and the report go (default: %(default)s)")
    judgments.arguments(parser, clicks=True)
    add("--force", action="store_true", help="write the bundle even if held-out queries do not gain by it")
    add("--epochs", type=int, default=Settings.epochs, help="passes over the lists at most (default: %(default)s)")
    add("--learning-rate", type=float, default=Settings.learning_rate, help="peak rate (default: %(default)s)")
    add("--closeness", type=float, default=Settings.closeness, help="weight of staying near the old scores (default: %(default)s)")
    add("--threads", type=int, default=0, help="CPU threads (default: the CPUs that this process may use)")
    add("--seed", type=int, default=1)


@dataclass(frozen=True, slots=True)
class Shop:
    """What was read: lists that can be learnt from, and every product whose text is known."""

    lists: Sequence[JudgedList]
    products: Sequence[Product]
    notes: tuple[str, ...]


def run(options: argparse.Namespace) -> int:
    """Measure on held-out queries, write the report, and the bundle if it is better or forced."""
    for name in (options.name, options.version):
        if not is_name(name):
            raise StageError(f"{name!r} cannot name a bundle or a version: expected a-z 0-9 . _ -, such as my-shop")
    shop = _shop(options)
    bundle = open_bundle(options.base)
    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    student = student_of(bundle)
    settings = replace(Settings(), epochs=options.epochs, learning_rate=options.learning_rate, closeness=options.closeness)
    scratch = options.out / f".{options.name}-{_key(bundle, shop, settings, options.seed)}"
    scratch.mkdir(parents=True, exist_ok=True)
    top = Top(student, min(LAYERS, len(student.model.bert.encoder.layer)))
    base = top.copied()
    started = time.monotonic()
    material = prepare(student, top, shop.lists, shop.products, options.seed)
    folds = folds_of([judged.query for judged in shop.lists], sum(map(len, shop.lists)), options.seed)
    _say(f"{len(shop.lists)} lists read in {time.monotonic() - started:.0f} s; learning {folds.max() + 2} times")
    held = hold_out(top, base, material, folds, settings, scratch=scratch, seed=options.seed)
    comparison = _compared(shop.lists, material, held)
    gain = comparison.paired(AFTER, BEFORE)
    better = gain.low > 0
    _report(options, shop, comparison, held)
    if not better and not options.force:
        raise StageError(
            f"{verdict(comparison, AFTER, BEFORE)} No bundle was written, the report is in {options.out}; more judged queries "
            "may show a gain, and --force writes it as it is"
        )
    top.load_state_dict(base)
    draws = np.random.default_rng(options.seed)
    lessons = [lesson for each in material for lesson in each.lessons(draws)]
    _learn_all(top, base, lessons, settings, held, scratch=scratch, seed=options.seed)
    made = write(Tuned(bundle, student, shop.lists, comparison, settings, held.best, gain), options)
    shutil.rmtree(scratch)
    _say(f"{verdict(comparison, AFTER, BEFORE)}\nwrote {options.out / options.name}, bundle {made.id}; serve it with "
         f"SHELFRANK_BUNDLE_DIR={options.out} SHELFRANK_BUNDLE={options.name} python -m service")
    return 0
