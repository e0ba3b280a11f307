"""A synthetic catalogue made from templates and a seed: for tests, demonstrations and fresh machines.

Knows its own invented brands and rules; nothing of it is real, and no figure on it says anything about real search.
Invariant: the same seed gives the same catalogue, and every label follows from the rule in `judge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SOURCE = "synthetic"
BRANDS = ("Norvik", "Alderi", "Quenta", "Brastow", "Luminor", "Tevano", "Oskari", "Feldane")
COLORS = ("black", "white", "red", "blue", "green", "grey", "yellow", "brown")

# kind -> (category, materials or variants, kinds that complement it)
KINDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "running shoes": ("Shoes", ("mesh", "leather", "waterproof"), ("sports socks", "shoe laces")),
    "hiking boots": ("Shoes", ("leather", "suede", "waterproof"), ("sports socks", "shoe laces")),
    "sports socks": ("Clothing", ("cotton", "wool", "nylon"), ("running shoes",)),
    "shoe laces": ("Shoe care", ("round", "flat", "waxed"), ("running shoes", "hiking boots")),
    "rain jacket": ("Clothing", ("nylon", "hooded", "light"), ("umbrella",)),
    "umbrella": ("Accessories", ("folding", "large", "windproof"), ("rain jacket",)),
    "office chair": ("Furniture", ("mesh", "leather", "swivel"), ("standing desk", "desk lamp")),
    "standing desk": ("Furniture", ("oak", "steel", "electric"), ("office chair", "desk lamp")),
    "desk lamp": ("Lighting", ("led", "clamp", "dimmable"), ("standing desk",)),
    "wireless mouse": ("Electronics", ("silent", "ergonomic", "gaming"), ("mouse pad", "keyboard")),
    "keyboard": ("Electronics", ("mechanical", "silent", "compact"), ("wireless mouse",)),
    "mouse pad": ("Electronics", ("large", "gaming", "cork"), ("wireless mouse",)),
    "phone case": ("Phones", ("leather", "clear", "rugged"), ("phone charger",)),
    "phone charger": ("Phones", ("fast", "travel", "magnetic"), ("phone case",)),
    "water bottle": ("Kitchen", ("steel", "glass", "insulated"), ("lunch box",)),
    "lunch box": ("Kitchen", ("steel", "bamboo", "insulated"), ("water bottle",)),
    "frying pan": ("Kitchen", ("steel", "ceramic", "cast iron"), ("spatula",)),
    "spatula": ("Kitchen", ("silicone", "steel", "bamboo"), ("frying pan",)),
    "yoga mat": ("Sports", ("cork", "thick", "folding"), ("water bottle",)),
    "backpack": ("Bags", ("leather", "nylon", "waterproof"), ("water bottle", "umbrella")),
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """What a product is, or what a query asks for; an empty attribute is not asked for."""

    kind: str
    variant: str = ""
    color: str = ""
    brand: str = ""


def judge(wanted: Item, offered: Item) -> str:
    """Return E when all that is asked for holds, S when only the kind does, C for a complement, else I."""
    if wanted.kind == offered.kind:
        asked = (
            (wanted.variant, offered.variant),
            (wanted.color, offered.color),
            (wanted.brand, offered.brand),
        )
        return "E" if all(want in ("", have) for want, have in asked) else "S"
    return "C" if offered.kind in KINDS[wanted.kind][2] else "I"


def judged_pairs(seed: int, queries: int, per_query: int = 16) -> list[Row]:
    """Return labelled pairs: `queries` distinct queries with `per_query` products each, all classes mixed."""
    generator = np.random.default_rng([seed, 1])
    products = [_item(generator) for _ in range(40 * len(KINDS))]
    rows = []
    for wanted in _queries(generator, queries):
        text = query_text(wanted)
        by_label: dict[str, list[int]] = {"E": [], "S": [], "C": [], "I": []}
        for place, offered in enumerate(products):
            by_label[judge(wanted, offered)].append(place)
        picks: list[int] = []
        for places in by_label.values():
            chosen = generator.permutation(len(places))[: per_query // 4]
            picks += [places[i] for i in chosen]
        for place in picks:
            told = {"query_id": f"synthetic-{text.replace(' ', '-')}", "query": text, "locale": "us"}
            rows.append(told | _product(products[place], place) | {"label": judge(wanted, products[place])})
    return rows


def pool(seed: int, products: int, queries: int) -> tuple[list[Row], list[Row]]:
    """Return unlabelled products and queries of the same invented shop."""
    generator = np.random.default_rng([seed, 2])
    items = [
        _product(_item(generator), 10_000 + place) | {"locale": "us", "source": SOURCE}
        for place in range(products)
    ]
    return items, [{"query": query_text(item), "source": SOURCE} for item in _queries(generator, queries)]


def query_text(wanted: Item) -> str:
    """Return the words a shopper of this shop would type."""
    return " ".join(
        word for word in (wanted.brand.lower(), wanted.color, wanted.variant, wanted.kind) if word
    )


def _item(generator: np.random.Generator) -> Item:
    kind = str(generator.choice(list(KINDS)))
    variant = str(generator.choice(KINDS[kind][1]))
    return Item(kind, variant, str(generator.choice(COLORS)), str(generator.choice(BRANDS)))


def _queries(generator: np.random.Generator, count: int) -> list[Item]:
    """Draw distinct wishes: a kind with some of its attributes asked for."""
    found: dict[str, Item] = {}
    for _ in range(200 * count):
        if len(found) == count:
            break
        full = _item(generator)
        asked = generator.random(3) < (0.5, 0.5, 0.2)
        wish = Item(
            full.kind,
            full.variant if asked[0] else "",
            full.color if asked[1] else "",
            full.brand if asked[2] else "",
        )
        found.setdefault(query_text(wish), wish)
    if len(found) < count:
        raise ValueError(f"the synthetic shop has too few distinct queries for {count}; ask for fewer")
    return list(found.values())


def _product(item: Item, number: int) -> Row:
    category = KINDS[item.kind][0]
    title = f"{item.brand} {item.variant} {item.kind} {item.color}"
    return {
        "product_id": f"synthetic-{number}",
        "title": title,
        "brand": item.brand,
        "color": item.color,
        "category": category,
        "bullets": f"{item.variant}\n{item.color}",
        "description": f"A {item.color} {item.kind} of the {category.lower()} department, {item.variant}.",
    }
