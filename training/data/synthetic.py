"""An invented shop made from a seed, which words alone cannot rank: for tests, demonstrations and fresh machines.

Knows its own kinds, names and rules; nothing of it is real, and no figure on it says anything about real search.
A kind has two names and a size two spellings, of which query and product each take one; parts name what they are for
by both names, so they repeat the words of a query better than what it asks for.
Invariant: the same seed gives the same catalogue, and every label follows from the rule in `judge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SOURCE = "synthetic"
BRANDS = ("Norvik", "Alderi", "Quenta", "Brastow", "Luminor", "Tevano")
COLORS = (
    ("black",),
    ("white", "ivory"),
    ("red", "crimson"),
    ("blue", "navy"),
    ("grey", "gray"),
    ("beige", "sand"),
)
LITRES = (("1l", "1000ml"), ("2l", "2000ml"), ("3l", "3000ml"))
METRES = (("1m", "100cm"), ("2m", "200cm"), ("3m", "300cm"))
KILOGRAMS = (("5kg", "5000g"), ("7kg", "7000g"), ("9kg", "9000g"))

# kind, by its first name -> its names, its department, its sizes, the part that is sold for it
KINDS: dict[str, tuple[tuple[str, str], str, tuple[tuple[str, str], ...], str]] = {
    "kettle": (("kettle", "boiler"), "Kitchen", LITRES, "filter"),
    "saucepan": (("saucepan", "pot"), "Kitchen", LITRES, "lid"),
    "dustbin": (("dustbin", "trashcan"), "Household", LITRES, "liner"),
    "sofa": (("sofa", "couch"), "Furniture", METRES, "cover"),
    "rug": (("rug", "carpet"), "Furniture", METRES, "underlay"),
    "curtain": (("curtain", "drape"), "Furniture", METRES, "rail"),
    "stroller": (("stroller", "pram"), "Children", KILOGRAMS, "canopy"),
    "lawnmower": (("lawnmower", "mower"), "Garden", KILOGRAMS, "blade"),
    "dumbbell": (("dumbbell", "weight"), "Sports", KILOGRAMS, "rack"),
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """What a product is, or what a query asks for; an empty attribute is not asked for.

    Attributes hold the first of their names, `words` the ones that are written.
    """

    kind: str
    size: str = ""
    color: str = ""
    brand: str = ""
    part: bool = False  # sold for the kind instead


def judge(wanted: Item, offered: Item) -> str:
    """Return E when all that is asked for holds, S when only the kind does, C for a part of it, else I."""
    if wanted.kind != offered.kind:
        return "I"
    if offered.part:
        return "C"
    asked = sum(map(bool, (wanted.size, wanted.color, wanted.brand)))
    return "E" if shared(wanted, offered) == asked else "S"


def shared(wanted: Item, offered: Item) -> int:
    """Return how many of the attributes asked for an offer has."""
    asked = ((wanted.size, offered.size), (wanted.color, offered.color), (wanted.brand, offered.brand))
    return sum(want == have for want, have in asked if want)


def judged_pairs(seed: int, queries: int, per_query: int = 16) -> list[Row]:
    """Return labelled pairs: `queries` distinct queries with `per_query` products each, all classes mixed."""
    generator = np.random.default_rng([seed, 1])
    items = [_item(generator) for _ in range(100 * len(KINDS))]
    products = [_product(item, place, generator) for place, item in enumerate(items)]
    rows = []
    for text, wanted in _queries(generator, queries).items():
        by_label: dict[str, list[int]] = {"E": [], "S": [], "C": [], "I": []}
        for place, offered in enumerate(items):
            by_label[judge(wanted, offered)].append(place)
        told = {"query_id": f"synthetic-{text.replace(' ', '-')}", "query": text, "locale": "us"}
        for label, places in by_label.items():
            chosen = [places[i] for i in generator.permutation(len(places))]
            if label in "CI":  # of what does not fit, that which a search by words would have found
                chosen.sort(key=lambda place: -shared(wanted, items[place]))
            rows += [told | products[place] | {"label": label} for place in chosen[: per_query // 4]]
    return rows


def pool(seed: int, products: int, queries: int) -> tuple[list[Row], list[Row]]:
    """Return unlabelled products and queries of the same invented shop."""
    generator = np.random.default_rng([seed, 2])
    items = [
        _product(_item(generator), 10_000 + place, generator) | {"locale": "us", "source": SOURCE}
        for place in range(products)
    ]
    return items, [{"query": text, "source": SOURCE} for text in _queries(generator, queries)]


def _item(generator: np.random.Generator) -> Item:
    kind = _one(generator, tuple(KINDS))
    size, color = _one(generator, KINDS[kind][2])[0], _one(generator, COLORS)[0]
    return Item(kind, size, color, _one(generator, BRANDS), part=bool(generator.random() < 0.25))


def _queries(generator: np.random.Generator, count: int) -> dict[str, Item]:
    """Draw distinct wishes, by the words a shopper of this shop would type: a kind with some of its attributes."""
    found: dict[str, Item] = {}
    for _ in range(200 * count):
        if len(found) == count:
            break
        full = _item(generator)
        asked = generator.random(3) < (0.7, 0.7, 0.2)
        wish = Item(
            full.kind,
            full.size if asked[0] else "",
            full.color if asked[1] else "",
            full.brand if asked[2] else "",
        )
        size, color, name = _words(wish, generator)
        text = " ".join(word for word in (wish.brand.lower(), color, name, size) if word)
        found.setdefault(text, wish)
    if len(found) < count:
        raise ValueError(f"the synthetic shop has too few distinct queries for {count}; ask for fewer")
    return found


def _words(item: Item, generator: np.random.Generator) -> tuple[str, str, str]:
    """Draw how somebody writes an item's size, color and kind."""
    names, _, sizes, _ = KINDS[item.kind]
    size = next((_one(generator, both) for both in sizes if both[0] == item.size), "")
    color = next((_one(generator, both) for both in COLORS if both[0] == item.color), "")
    return size, color, _one(generator, names)


def _one(generator: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[generator.integers(len(choices))]


def _product(item: Item, number: int, generator: np.random.Generator) -> Row:
    names, department, _, part = KINDS[item.kind]
    size, color, name = _words(item, generator)
    about = f"A {color} {name} of the {department.lower()} department, {size}."
    if item.part:
        name = f"{part} for {name}"
        about = f"A {part} for every {names[0]} or {names[1]} of {size}, {color}."
    return {
        "product_id": f"synthetic-{number}",
        "title": f"{item.brand} {name} {color} {size}",
        "brand": item.brand,
        "color": color,
        "category": department,
        "bullets": f"{size}\n{color}",
        "description": about,
    }
