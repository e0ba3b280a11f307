"""Makes a bundle of any cross-encoder, as transformers or sentence-transformers saved it.

Knows the command line; does not know models.
Invariant: a flag that is wrong is refused before anything heavy is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bundle.manifest import FieldName, Precision
from bundle.text import Product
from training.data import given
from training.data.lists import JudgedList
from training.errors import StageError
from training.pack.target import check_names

DEFAULT_FIELDS = "title,brand,color"
EMPTY = hashlib.sha256().hexdigest()
PRECISIONS = ("int8", "fp32", "fp16")


@dataclass(frozen=True, slots=True)
class TextChoice:
    """What is said of texts: fields with their most tokens (0: all there is room for), and lengths in tokens."""

    fields: tuple[tuple[FieldName, int], ...] = (("title", 0), ("brand", 0), ("color", 0))
    separator: str = " "
    max_length: int = 0
    query_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    model: str
    weights: str = ""
    name: str
    version: str = "1"
    out: Path
    replace: bool = False
    judgments: Path | None = None
    lists: tuple[JudgedList, ...] = ()
    text: TextChoice = TextChoice()
    gains: str = ""
    precisions: tuple[Precision, ...] = ("int8",)
    licences: tuple[str, ...] = ()
    sha256: str = EMPTY


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="hub id or local folder of a cross-encoder")
    add("--name", required=True, help="the bundle's name, which is its folder's too")
    add("--version", default="1", help="the bundle's version (default: %(default)s)")
    add(
        "--out",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="where its folder goes (default: models)",
    )
    add("--replace", action="store_true", help="put it in the place of a bundle of that name")
    add("--weights", default="", metavar="DIR", help="local folder of the model that MODEL names on the hub")
    fields = "the product's fields that make the second text; title=64 reads at most 64 tokens of it"
    add("--fields", default=DEFAULT_FIELDS, metavar="NAMES", help=f"{fields} (default: %(default)s)")
    add("--separator", default=" ", metavar="TEXT", help="what stands between two fields (default: a space)")
    add(
        "--max-length",
        type=int,
        default=0,
        metavar="N",
        help="tokens of a pair (default: the model's, up to 512)",
    )
    add(
        "--query-tokens",
        type=int,
        default=0,
        metavar="N",
        help="tokens of a query (default: half of a pair's)",
    )
    add("--gains", default="", metavar="LIST", help="what classes are worth: 0,0.5,1 or irrelevant=0,exact=1")
    graphs = "graphs of the bundle, of int8, fp32 and fp16; the first is served"
    add("--precision", default="int8", metavar="NAMES", help=f"{graphs} (default: %(default)s)")
    add("--licence", action="append", default=[], metavar="TEXT", help="a licence of the model, for the card")
    title = "judged lists: they calibrate scores and int8, and measure both"
    given.arguments(parser, "--pairs", title=title, required=False, clicks=False)


def run(options: argparse.Namespace) -> int:
    """Write the bundle; StageError, DataError or BundleError if there can be none, and then nothing is written."""
    order = read_order(options)
    from training.importing.bring import bring  # noqa: PLC0415 - seconds of imports, once the flags are known to be right

    bring(order)
    return 0


def read_order(options: argparse.Namespace) -> Order:
    """Return what the options ask for; StageError for one that is wrong."""
    check_names(options.name, options.version)
    if options.max_length < 0 or options.query_tokens < 0:
        raise StageError("--max-length and --query-tokens: expected numbers above 0")
    if not options.separator[:1].isspace() or len(options.separator) > 16:
        raise StageError(
            f"--separator {options.separator!r}: expected up to 16 characters that begin with white space"
        )
    if (options.products or options.queries) and not options.judgments:
        raise StageError("--products and --queries are the texts of judgements, and --judgments names none")
    return Order(
        model=options.model,
        weights=options.weights,
        name=options.name,
        version=options.version,
        out=options.out,
        replace=options.replace,
        judgments=options.judgments,
        lists=tuple(given.given(options)) if options.judgments else (),
        text=TextChoice(
            read_fields(options.fields), options.separator, options.max_length, options.query_tokens
        ),
        gains=options.gains,
        precisions=read_precisions(options.precision),
        licences=tuple(options.licence),
        sha256=hashlib.sha256(json.dumps(vars(options), default=str, sort_keys=True).encode()).hexdigest(),
    )


def read_fields(text: str) -> tuple[tuple[FieldName, int], ...]:
    """Return fields with their most tokens; StageError for a field that no product has.

    >>> read_fields("title,brand=8")
    (('title', 0), ('brand', 8))
    """
    found: dict[FieldName, int] = {}
    for part in text.split(","):
        name, equals, most = (piece.strip() for piece in part.partition("="))
        if name not in Product._fields or name in found or (equals and not (most.isdecimal() and int(most))):
            raise StageError(
                f"--fields {text}: expected some of {', '.join(Product._fields)}, each once, such as title,brand=8 to "
                "read at most 8 tokens of the brand"
            )
        found[cast("FieldName", name)] = int(most or 0)
    return tuple(found.items())


def read_precisions(text: str) -> tuple[Precision, ...]:
    """Return the graphs that are asked for; StageError for one that there is not.

    >>> read_precisions("int8,fp32")
    ('int8', 'fp32')
    """
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != len(names) or not set(names) <= set(PRECISIONS):
        raise StageError(f"--precision {text}: expected some of {', '.join(PRECISIONS)}, each once")
    return cast("tuple[Precision, ...]", tuple(names))
