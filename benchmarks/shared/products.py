"""The products that are ranked, and requests made of them.

Knows the file of products and the body of a rerank; does not know how a request is sent, nor what is measured.
Invariant: the same seed gives the same lists, and every list holds the products that were made for its query.
"""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PRODUCTS: Final = Path(__file__).with_name("products.jsonl")
BODIES: Final = 64  # distinct requests of a size, so that no single list decides


def read_products(path: Path = PRODUCTS) -> list[dict[str, str]]:
    """Return one row per product: the query it was made for and its text fields."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_bodies(products: Sequence[dict[str, str]], size: int, rng: random.Random) -> list[bytes]:
    """Return request bodies of `size` products: those made for the query first, then others at random."""
    by_query: dict[str, list[dict[str, str]]] = defaultdict(list)
    for product in products:
        fields = {name: text for name, text in product.items() if name != "query" and text}
        by_query[product["query"]].append(fields)
    bodies = []
    for _ in range(BODIES):
        query = rng.choice(list(by_query))
        others = [product for other, group in by_query.items() if other != query for product in group]
        documents = (by_query[query] + rng.sample(others, min(size, len(others))))[:size]
        rng.shuffle(documents)
        bodies.append(json.dumps({"query": query, "documents": documents}, ensure_ascii=False).encode())
    return bodies
