"""The benchmark's products: invented, reproducible, and as long as real ones."""

from benchmarks.shared.make_products import FAMILIES, dump_products, make_products
from benchmarks.shared.products import PRODUCTS, read_products


def test_committed_products_are_what_the_script_makes() -> None:
    """Nobody edited the products by hand, so old and new figures are about the same texts."""
    assert PRODUCTS.read_text(encoding="utf-8") == dump_products(
        make_products(FAMILIES.read_text(encoding="utf-8"))
    )


def test_products_are_many_distinct_and_of_realistic_length() -> None:
    """At least 150 products for at least 20 queries, with titles of 8 to 35 words."""
    products = read_products()

    assert len({product["title"] for product in products}) == len(products) >= 150
    assert len({product["query"] for product in products}) >= 20
    assert all(8 <= len(product["title"].split()) <= 35 for product in products)
