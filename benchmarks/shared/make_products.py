"""Writes benchmarks/shared/products.jsonl: invented products in the lengths that real catalogues have.

Knows families of phrases and a seed; does not know what is measured with the products.
Invariant: the same families give the same bytes; titles have 8 to 35 words.
"""

import json
import random
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.products import PRODUCTS

FAMILIES: Final = Path(__file__).with_name("families.toml")
SEED: Final = 20
PRODUCTS_PER_FAMILY: Final = 8
MAX_TITLE_WORDS: Final = 35
SERIES: Final = ("", "Pro", "Classic", "Basics", "Plus", "2nd Generation", "Studio", "Max")


def make_products(families_toml: str) -> list[dict[str, str]]:
    """Return one row per product: the query it was made for and its text fields."""
    document = tomllib.loads(families_toml)
    rng = random.Random(SEED)  # noqa: S311 - products, not secrets
    return [
        _product(family, brand, rng.choice(document["colors"]), rng)
        for family in document["family"]
        for brand in rng.sample(document["brands"], PRODUCTS_PER_FAMILY)
    ]


def dump_products(products: list[dict[str, str]]) -> str:
    """Return the products as JSON lines."""
    return "".join(json.dumps(product, ensure_ascii=False) + "\n" for product in products)


def _product(family: dict[str, Any], brand: str, color: str, rng: random.Random) -> dict[str, str]:
    features = rng.sample(family["features"], rng.choice((1, 2, 2, 3, 3, 4, 6)))
    bullets = rng.sample(family["features"], rng.choice((0, 3, 5)))
    sentences = rng.sample(family["sentences"], rng.choice((0, 2, 3, 4)))
    return {
        "query": family["query"],
        "title": _title(f"{brand} {rng.choice(SERIES)} {rng.choice(family['nouns'])}", features, color),
        "brand": brand,
        "color": color,
        "category": family["category"],
        "bullets": "\n".join(bullets),
        "description": " ".join(sentences),
    }


def _title(name: str, features: list[str], color: str) -> str:
    words = ", ".join([name, *features, color]).split()
    return " ".join(words[:MAX_TITLE_WORDS])


if __name__ == "__main__":
    PRODUCTS.write_text(dump_products(make_products(FAMILIES.read_text(encoding="utf-8"))), encoding="utf-8")
    sys.stderr.write(f"wrote {PRODUCTS.name}\n")
