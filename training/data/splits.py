"""PURE. Which judged queries train, which choose, and which are looked at once: splits by the hash of a query.

Knows queries and the recipe of a split; does not know file formats.
Invariant: all pairs of one query, in the form that the recipe's guard names, fall into the same split.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

from training.sections.data import DataRecipe, SplitRecipe

Row = dict[str, Any]


def normalize_query(query: str) -> str:
    """Return the form under which two queries count as the same: NFKC, case-folded, words and digits only.

    >>> normalize_query("  Wireless-Mouse ")
    'wireless mouse'
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def query_words(query: str) -> str:
    """Return the words of a query without order, repetition and the plural's s.

    >>> query_words("Laptop Bags") == query_words("bag laptop")
    True
    >>> query_words("glass") == query_words("glas")
    False
    """
    words = (re.sub(r"(?<=[^s])s$", "", word) for word in normalize_query(query).split())
    return " ".join(sorted(set(words)))


def split_of(query: str, split: SplitRecipe) -> str:
    """Return train, validation or test from the hash of the normalised query, or of its words."""
    digest = hashlib.sha256(f"{split.salt}\0{form_of(split.guard)(query)}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "validation" if place < split.test + split.validation else "train"


def form_of(guard: str) -> Callable[[str], str]:
    """Return the form in which queries that share a split are the same, by a recipe's `guard`: `equal` or `words`."""
    return query_words if guard == "words" else normalize_query


def with_splits(rows: list[Row], recipe: DataRecipe) -> list[Row]:
    """Give every row its split: all rows of one query, in the guard's form, share the strictest.

    A published split wins over the hashed one. A query that no source holds out by itself, for its lists are
    too short, is for training.
    """
    form, order = form_of(recipe.split.guard), {"train": 0, "validation": 1, "test": 2}
    least = {source.name: source.held_out_from for source in recipe.sources}
    sizes = Counter((row["dataset"], normalize_query(row["query"])) for row in rows)
    split: dict[str, str] = {}
    for row in rows:
        is_long = sizes[row["dataset"], normalize_query(row["query"])] >= least[row["dataset"]]
        hashed = split_of(row["query"], recipe.split) if is_long else "train"
        key = form(row["query"])
        split[key] = max(split.get(key, "train"), row.get("split") or hashed, key=order.__getitem__)
    return [row | {"split": split[form(row["query"])]} for row in rows]
