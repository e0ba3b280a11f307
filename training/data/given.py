"""The options by which somebody gives a verb their judgements or clicks, and what is read by them.

Knows the names of options; does not know formats, or what the lists are for.
Invariant: every verb that takes judgements takes them under the same names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from training.data.clicks import read_clicks
from training.data.formats import shown
from training.data.judgments import read_judgments
from training.data.lists import JudgedList
from training.errors import DataError


def arguments(
    parser: argparse.ArgumentParser,
    *names: str,
    title: str = "judgements",
    required: bool = True,
    clicks: bool = True,
) -> None:
    """Add the options that name judgements, for `given` to read; `names` are others for --judgments.

    With `clicks`, a file of clicks may stand in their place.
    """
    group = parser.add_argument_group(title)
    add = group.add_argument
    kinds = group.add_mutually_exclusive_group(required=required)
    kinds.add_argument(
        "--judgments", *names, type=Path, metavar="FILE", help="a table, Quepid's export, qrels or a folder"
    )
    parser.set_defaults(clicks=None)
    if clicks:
        kinds.add_argument(
            "--clicks",
            type=Path,
            metavar="FILE",
            help="a table of query, product, impressions, clicks and, if known, position, in place of judgements",
        )
    add(
        "--products",
        type=Path,
        metavar="FILE",
        help="the products, where the judgements have their ids alone",
    )
    add("--queries", type=Path, metavar="FILE", help="the queries, where the judgements have their ids alone")
    pairs = {"action": "append", "default": []}
    add("--column", **pairs, metavar="OURS=THEIRS", help="what the files call a column: title=name")
    add("--grade", **pairs, metavar="GRADE=WORTH", help="what a grade or label is worth, in [0, 1]: good=0.5")


def given(options: argparse.Namespace, split: str = "") -> list[JudgedList]:
    """Read the judgements or clicks that the options of `arguments` name, those of a split if it is named."""
    files = {"products": options.products, "queries": options.queries}
    columns = _pairs("--column", options.column)
    if options.clicks:
        return read_clicks(options.clicks, **files, columns=columns)
    grades = _pairs("--grade", options.grade)
    return read_judgments(options.judgments, **files, columns=columns, grades=grades, split=split)


def file_of(options: argparse.Namespace) -> Path:
    """Return the file or folder that was given, of judgements or of clicks."""
    path: Path = options.judgments or options.clicks
    return path


def _pairs(option: str, words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.rpartition("=") if option == "--grade" else word.partition("=")
        if not (name and equals and value):
            raise DataError(f"{option} {shown(word)}: expected NAME=VALUE")
        found[name] = value
    return found
