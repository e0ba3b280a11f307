"""PURE. The record of docs/clients.md: read, compared with what is so now, and written.

Knows the table's form and what counts as lost; does not know how a client is asked.
Invariant: a row that was not asked stays as it was, and one that held is never written over by one that does not.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

HELD: Final = "yes"
PLACE: Final = "http://shelfrank:8000"
"""Stands for the service's address in what is printed and written."""

_ROW: Final = re.compile(
    r"^\| \[(.+?)\]\(\.\./clients/(.+?)\) \| (.*?) \| `(.*?)` \| (.*?) \|$", re.MULTILINE
)
_HEAD: Final = """# Clients

This page is written by `make clients`, which starts the service with the default bundle and lets each of these clients rank the same eight products, set up as its own documentation says; each link leads to the program that does it, for you to copy from.
"yes" means that the client got the order of `POST /v1/rerank` and its scores to five decimals.
`http://shelfrank:8000` stands for the service's address; the clients name models of their own vendor, except those that look the model up first.
`make clients` fails if a row that says "yes" no longer holds; a client that cannot be installed is named in the output, and its row stays unchanged.
[api.md](api.md#i-use-x-so-i-set-y) says how to set up each.

| client | version | what is set | ranked as expected |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One row: a client, the program that asks it, its version, what is set, and `yes` or why not."""

    client: str
    program: str
    version: str
    setting: str
    verdict: str

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same row in another run."""
        return self.client, self.setting

    @property
    def held(self) -> bool:
        """Whether the client ranked as expected."""
        return self.verdict == HELD


def read(text: str) -> list[Line]:
    """Return the rows of the page."""
    return [Line(*found.groups()) for found in _ROW.finditer(text)]


def write(lines: Iterable[Line]) -> str:
    """Return the page; `read` gives the same rows back."""
    return _HEAD + rows(lines)


def rows(lines: Iterable[Line]) -> str:
    """Return the rows as they stand in the page."""
    return "".join(
        f"| [{line.client}](../clients/{line.program}) | {line.version} | `{line.setting}` | {line.verdict} |\n"
        for line in lines
    )


def lost(before: Sequence[Line], now: Sequence[Line], unasked: Collection[str]) -> list[Line]:
    """Return the rows that held before and do not now, but for those of programs that could not be asked here."""
    holding = {line.key for line in now if line.held}
    return [line for line in before if line.held and line.program not in unasked and line.key not in holding]


def merged(before: Sequence[Line], now: Sequence[Line], unasked: Collection[str]) -> list[Line]:
    """Return what is so now, and of the programs that could not be asked here what was so before."""
    return [*now, *(line for line in before if line.program in unasked)]
