"""What the Python programs of this folder share: a row, and how it is asked and reported.

Knows that every client is to rank one list of products; does not know which clients there are, nor what is right.
Invariant: a client that fails costs its own row alone, and every row is one line of JSON on stdout.

    .venv-clients-makers/bin/python -m clients.cohere http://127.0.0.1:8000 "wireless mouse" "Mouse pad" "Wireless mouse"
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

MODEL: Final = "rerank-v3.5"
"""A model of somebody else: what users name who only changed the address."""

Ranking = Iterable[tuple[int, float | None]]
"""Positions in the request with their scores, best first; no score where the client gives none of ours."""


@dataclass(frozen=True, slots=True)
class Row:
    """One client: its name, its distribution (or its version), what a user sets to what, and how it is asked."""

    client: str
    package: str
    name: str
    value: str
    ask: Callable[[str, str, list[str]], Ranking]


def report(*rows: Row) -> None:
    """Ask every client of a program for the list that the command line gives, and print what came of it."""
    url, query, *documents = sys.argv[1:]
    for row in rows:
        told = {"client": row.client, "version": _version(row.package), "name": row.name, "value": row.value}
        try:
            ranking = row.ask(_filled(row.value, url), query, documents)
            told["ranking"] = [(index, None if score is None else float(score)) for index, score in ranking]
        except Exception as error:  # noqa: BLE001  whatever a client raises is its row's result
            told["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(told), flush=True)


def by_text(documents: Sequence[str], results: Iterable[tuple[str, float | None]]) -> Ranking:
    """Return the ranking of a client that gives texts back instead of positions."""
    return [(documents.index(text), score) for text, score in results]


def by_score(scores: Sequence[float]) -> Ranking:
    """Return the ranking of a client that gives scores in the order of the request."""
    return sorted(enumerate(scores), key=lambda each: -each[1])


def _version(package: str) -> str:
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):  # it is no distribution, but says its version itself
        return package


def _filled(value: str, url: str) -> str:
    return value.format(url=url, host=url.removeprefix("http://"))
