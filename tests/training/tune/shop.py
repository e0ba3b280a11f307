"""An invented shop whose judgements follow a rule that no shipped bundle knows: the house brand is what shoppers want."""

import csv
from pathlib import Path

import numpy as np

KINDS = (
    "garden hose",
    "phone case",
    "desk lamp",
    "water bottle",
    "yoga mat",
    "frying pan",
    "umbrella",
    "backpack",
)
COLORS = ("red", "blue", "green", "black")
BRANDS = ("Voltaro", "Nordhem", "Ironbark", "Cairn")
HOUSE = BRANDS[0]


def judged_file(path: Path, *, queries: int = 20, shuffled: bool = False, best: int = 3) -> Path:
    """Write judged lists of eight products: two of the house brand, with grade `best`, and six others with grade 0."""
    draws = np.random.default_rng(5)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "product_id", "title", "brand", "color", "grade"])
        for number in range(queries):
            kind, color = KINDS[number % len(KINDS)], COLORS[number // len(KINDS) % len(COLORS)]
            brands = [*BRANDS, *BRANDS]
            grades = [best if brand == HOUSE else 0 for brand in brands]
            if shuffled:
                draws.shuffle(grades)
            for place, (brand, grade) in enumerate(zip(brands, grades, strict=True)):
                title = f"{kind}, {color if place < 4 else 'grey'}, {brand}"
                rows.writerow([f"{color} {kind}", f"{number}-{place}", title, brand, color, grade])
    return path
