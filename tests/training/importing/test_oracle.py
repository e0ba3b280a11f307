"""Every architecture, imported from a folder and served, scores as sentence-transformers' own CrossEncoder does."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
oracle = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: it is what imports are compared with"
)

import torch  # noqa: E402

from bundle import Product, read_bundle  # noqa: E402
from service import create_app  # noqa: E402
from service.settings import Settings  # noqa: E402
from tests.service.support import Served  # noqa: E402
from tests.training.importing.folders import PRODUCTS, QUERIES, TOKENIZERS, save_folder  # noqa: E402
from training.__main__ import main  # noqa: E402

CLOSE = 1e-4


def bring(folder: Path, out: Path, *options: str) -> Path:
    """Import a folder by the command line, fp32 unless told otherwise; the folder of bundles."""
    arguments = ["import", str(folder), "--name", "mine", "--out", str(out), "--precision", "fp32", *options]
    assert main(arguments) == 0
    return out


def asked(product: Product) -> dict[str, str] | str:
    """A product as a client sends it."""
    return product._asdict() if any(product) else {"title": ""}


def served_scores(root: Path, query: str, products: list[Product]) -> np.ndarray:
    """Scores of the products, in their order, by the service on the imported bundle."""
    with Served(create_app(Settings(models_root=root, bundle="mine", workers=1))) as served:
        answer = served.post({"query": query, "documents": [asked(product) for product in products]})
    assert answer.status == 200, answer.body
    found = {result["index"]: result["relevance_score"] for result in answer.json["results"]}
    return np.array([found[place] for place in range(len(products))])


def second_text(product: Product) -> str:
    """The text that a product is to the model."""
    return " ".join(part.strip() for part in (product.title, product.brand, product.color, product.text) if part)


def own_scores(folder: Path, query: str, products: list[Product], **options: Any) -> np.ndarray:
    """What the oracle says of the same pairs, one at a time where padding is on the left."""
    model = oracle.CrossEncoder(str(folder), device="cpu", **options)
    return np.asarray(model.predict([(query, second_text(product)) for product in products]))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_scores_are_the_oracles(kind: str, tmp_path: Path) -> None:
    """A folder of transformers, its fields joined, long and odd texts among them, scores alike through the service."""
    folder = save_folder(tmp_path / kind, kind)
    root = bring(folder, tmp_path / "out")

    for query in QUERIES:
        expected = own_scores(folder, query, PRODUCTS)

        assert np.ptp(expected) > 100 * CLOSE
        assert served_scores(root, query, PRODUCTS) == pytest.approx(expected, abs=CLOSE)
