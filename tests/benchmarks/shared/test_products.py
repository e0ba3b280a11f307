"""Requests made of the products: distinct lists, each with what its query asks for."""

import json
import random

import pytest

from benchmarks.shared.products import make_bodies, read_products


@pytest.mark.parametrize("size", [1, 5, 8, 10, 100, 180])
def test_bodies_are_distinct_lists_of_the_size(size: int) -> None:
    """Every body has one query and so many different products, its own ones among them."""
    titles = {row["title"]: row["query"] for row in read_products()}

    bodies = [json.loads(body) for body in make_bodies(read_products(), size, random.Random(1))]  # noqa: S311 - lists, not secrets

    assert len({json.dumps(body) for body in bodies}) > 20
    for body in bodies:
        found = [titles[document["title"]] for document in body["documents"]]
        assert len({document["title"] for document in body["documents"]}) == size
        assert found.count(body["query"]) == min(size, 8)
        assert all("query" not in document and "" not in document.values() for document in body["documents"])
