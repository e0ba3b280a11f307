"""Read what a search team has judged, in any of the formats of a recipe's table, as lists ready to be ranked.

Knows files and grades; does not know recipes or models.
Invariant: what no ranking could be measured on is a DataError in one line, before any model is loaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from training.data.formats import folded, shown
from training.data.grades import LABEL_NAMES, number, told
from training.data.lists import JudgedList, lists_of, rankable
from training.data.sources import column_names, read_sources
from training.data.tables import Line, read_lines
from training.errors import DataError
from training.sections.data import DataRecipe, GradeRecipe, SourceRecipe

FEW_LISTS = 20  # below it, the interval of a difference is wider than most differences between good rankers
SHORTEST = 2  # products of a list that can be ranked


def read_judgments(
    path: Path,
    *,
    products: Path | None = None,
    queries: Path | None = None,
    columns: Mapping[str, str] = {},
    grades: Mapping[str, float | str] = {},
    split: str = "",
    name: str = "shop",
) -> list[JudgedList]:
    """Read judged lists from a table, a Quepid export, TREC qrels, or a folder of queries, products and judgements.

    `columns` maps our names of columns to the file's. `grades` says what each grade is worth, as a gain in [0, 1];
    without it, a number in a table is worth its share of the highest there, in a folder of three files its share of 3,
    and a label what ESCI says. `split` keeps the rows that their column `split` has in it.
    DataError if a row cannot be read, a judged id has no text, or no list has two different grades.
    """
    columns = {"split": "split"} | dict(columns) if split else columns
    source = _source(
        kind="judged" if path.is_dir() else "table",
        name=name,
        path=str(path),
        queries_file=str(queries or ""),
        products_file=str(products or ""),
        columns=columns,
        grades=grades,
    )
    if not grades and not path.is_dir():
        scale = _scale(read_lines(path, column_names(source)))
        source = source.model_copy(update={"grades": scale})
    rows = read_sources(DataRecipe(sources=(source,)))
    lists = lists_of(row for row in rows if not split or row["split"] == split)
    _check(path, lists)
    return lists


def arguments(
    parser: argparse.ArgumentParser, *names: str, title: str = "judgements", required: bool = True
) -> None:
    """Add the options that name judgements, for `given` to read; `names` are others for --judgments."""
    add = parser.add_argument_group(title).add_argument
    add(
        "--judgments",
        *names,
        type=Path,
        required=required,
        metavar="FILE",
        help="a table, Quepid's export, qrels or a folder",
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
    """Read the judgements that the options of `arguments` name."""
    return read_judgments(
        options.judgments,
        products=options.products,
        queries=options.queries,
        columns=_pairs("--column", options.column),
        grades=_pairs("--grade", options.grade),
        split=split,
    )


def _pairs(option: str, words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.rpartition("=") if option == "--grade" else word.partition("=")
        if not (name and equals and value):
            raise DataError(f"{option} {shown(word)}: expected NAME=VALUE")
        found[name] = value
    return found


def _source(**told: object) -> SourceRecipe:
    try:
        return SourceRecipe.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DataError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def usable(lists: Iterable[JudgedList], shortest: int = SHORTEST) -> list[JudgedList]:
    """Keep the lists on which one ranking can be told from another."""
    return rankable(lists, shortest)


def few(lists: Sequence[JudgedList]) -> str:
    """Return what it means that so few lists can be ranked, in one line; nothing if they are enough."""
    if (count := len(usable(lists))) >= FEW_LISTS:
        return ""
    return (
        f"only {count} of {len(lists)} lists have products of two grades, fewer than {FEW_LISTS}: the intervals are "
        f"wide and few queries decide, so a difference here says little about the next hundred queries; judge more"
    )


def _scale(lines: Iterable[Line]) -> dict[str, GradeRecipe]:
    """Return what each number of a file is worth: its share of the highest; what is below 0 is worth nothing."""
    found = {text: number(text) for line in lines if folded(text := told(line)[1]) not in LABEL_NAMES}
    finite = {text: value for text, value in found.items() if abs(value) < float("inf")}
    highest = max(finite.values(), default=0.0)
    shares = {text: max(value, 0.0) / highest if highest > 0 else 0.0 for text, value in finite.items()}
    return {text: GradeRecipe(target=share, gain=share) for text, share in shares.items()}


def _check(path: Path, lists: Sequence[JudgedList]) -> None:
    if not lists:
        raise DataError(f"{path}: no row is in that split")
    gains = {float(gain) for judged in lists for gain in judged.gains}
    if len(gains) == 1:
        first = lists[0]
        grade = first.labels[0] or first.grades[0]
        raise DataError(
            f"{path}: no second grade: all {sum(map(len, lists))} judgements are {shown(grade)}, and a ranking shows only "
            "where products of one query differ; add products that are worse or better"
        )
    if not usable(lists):
        raise DataError(
            f"{path}: no query has products of two different grades; judge several products of each query"
        )
