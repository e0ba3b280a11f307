"""The products that the catalogue benchmark invents, and one short run."""

import json

import pytest

from benchmarks.service.catalogue import FAILED, MEASURED, main, product_id, vary
from benchmarks.shared.products import read_products

ROWS = read_products()


def test_products_are_varied_and_repeatable() -> None:
    """The same seed and number give the same product; hardly two of a load have the same texts."""
    products = [vary(ROWS, index, seed=1) for index in range(1_000)]

    assert products == [vary(ROWS, index, seed=1) for index in range(1_000)]
    assert len({product.title for product in products}) > 990
    assert vary(ROWS, 0, seed=2) != products[0]


def test_ids_are_distinct() -> None:
    """No product of a million takes another's place."""
    assert len({product_id(index) for index in range(1_000_000)}) == 1_000_000


def test_a_short_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The table comes first and one JSON document last; ids cost less than texts, in bytes and in time."""
    assert main(["--products", "300"]) == MEASURED

    table, *_, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)["figures"]
    assert table.startswith("| figure")
    assert all(value > 0 for value in figures.values())
    assert figures["request_by_id_bytes"] * 10 < figures["request_by_text_bytes"]
    assert figures["rows_by_id_p50_ms"] < figures["rows_by_text_p50_ms"]


@pytest.mark.parametrize(
    "options",
    [["--bundle", "none"], ["--products", "20000", "--max-bytes", "1000000"]],
    ids=["bundle", "room"],
)
def test_what_cannot_be_measured_is_said(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a bundle, or without room for the products, there are no figures."""
    assert main(options) == FAILED

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "FAILED" in captured.err
