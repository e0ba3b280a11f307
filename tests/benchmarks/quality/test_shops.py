"""Tests of benchmarks/quality/shops.py: what it holds out, and grades that are worth nothing."""

from collections import Counter

import pytest

pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")

from benchmarks.quality.shops import shops, shuffled  # noqa: E402  after the question for pyarrow


def pairs() -> "pa.Table":
    """Make rows of two data sets: long lists of every split, and a short one."""
    rows = [
        {
            "dataset": dataset,
            "query_id": query,
            "product_id": str(place),
            "split": split,
            "label": None,
            "grade": place % 4,
        }
        for dataset in ("a", "b")
        for query, split, size in (
            ("1", "train", 6),
            ("2", "validation", 6),
            ("3", "test", 8),
            ("4", "test", 4),
        )
        for place in range(size)
    ]
    return pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            [(name, pa.string()) for name in rows[0] if name != "grade"] + [("grade", pa.int32())]
        ),
    )


def test_a_shop_has_held_out_lists_alone() -> None:
    """Lists that were trained on are left out, and so are short ones; all data sets make one shop more."""
    found = shops(pairs())

    assert {name: sorted(set(shop["query_id"].to_pylist())) for name, shop in found.items()} == {
        "a": ["2", "3"],
        "b": ["2", "3"],
        "all": ["a 2", "a 3", "b 2", "b 3"],
    }


def test_shuffled_grades_stay_in_their_list() -> None:
    """Each query has the grades it had, on other products."""
    shop = shops(pairs())["a"]
    other = shuffled(shop, seed=1)

    def grades(table: "pa.Table") -> Counter[tuple[str, int]]:
        return Counter(zip(table["query_id"].to_pylist(), table["grade"].to_pylist(), strict=True))

    assert grades(other) == grades(shop)
    assert other["grade"].to_pylist() != shop["grade"].to_pylist()
    assert other["product_id"].to_pylist() == shop["product_id"].to_pylist()
