"""Judged lists over the words of the tiny bundle, as files and as lists.

Knows the tiny bundle's vocabulary; does not know what is measured.
Invariant: the same call gives the same lists, and grades rise with the words that query and title share.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.tiny import WORDS

HEADER = "query_id,query,product_id,title,grade,position"


def rows(queries: int = 24, products: int = 6, seed: int = 3) -> list[str]:
    """Return the lines of a table: every query has two words, and its products share two, one or none of them."""
    draws = np.random.default_rng(seed)
    lines = []
    for number in range(queries):
        first, second = WORDS[16 + 2 * number : 18 + 2 * number]
        others = draws.permutation(WORDS[:16])[: 2 * products]
        places = draws.permutation(products) + 1
        for at in range(products):
            shared = (f"{first} {second}", str(first), "")[at % 3]
            grade = max(0, 3 - at % 3 - int(draws.random() < 0.3))
            title = f"{shared} {others[2 * at]} {others[2 * at + 1]}".strip()
            lines.append(f"q{number},{first} {second},p{number}-{at},{title},{grade},{places[at]}")
    return lines


def table(path: Path, lines: Sequence[str] = ()) -> Path:
    """Write the table and return its path."""
    path.write_text("\n".join([HEADER, *(lines or rows())]) + "\n", encoding="utf-8")
    return path
