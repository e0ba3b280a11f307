"""Every architecture, imported from a folder and served, scores as sentence-transformers' own CrossEncoder does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
oracle = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: imports are compared with it"
)

from sentence_transformers.base.modules import Dense, Transformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling  # noqa: E402

from bundle import Product  # noqa: E402
from service import create_app  # noqa: E402
from service.settings import Settings  # noqa: E402
from tests.service.support import Served  # noqa: E402
from tests.training.importing.folders import (  # noqa: E402
    PRODUCTS,
    QUERIES,
    edit_json,
    model_of,
    save_folder,
    tokenizer_of,
)
from training.__main__ import main  # noqa: E402

CLOSE = 1e-4
MINILM = "SHELFRANK_TEST_MINILM"
THREE = {"id2label": {0: "irrelevant", 1: "substitute", 2: "exact"}, "label2id": {}, "num_labels": 3}


@dataclass(frozen=True)
class Case:
    """A folder, the options it is imported with, and what its own predictions [n] or [n, classes] are as scores."""

    write: Callable[[Path], object]
    options: tuple[str, ...] = ()
    scores: Callable[[np.ndarray], np.ndarray] = lambda predicted: predicted
    batch: int = 32


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _expected(*gains: float) -> Callable[[np.ndarray], np.ndarray]:
    def of(logits: np.ndarray) -> np.ndarray:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares @ np.array(gains) / shares.sum(axis=1)

    return of


def _by_library(folder: Path) -> None:
    """Save a folder as sentence-transformers does, with another activation."""
    plain = save_folder(folder.with_name("plain"), "bert")
    oracle.CrossEncoder(str(plain), device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(
        str(folder)
    )


def _with_modules(folder: Path) -> None:
    """Save a body whose head lies in modules of its own, as the newer rerankers are."""
    tokenizer = tokenizer_of("modernbert")
    body = folder.with_name("body")
    model_of("modernbert", tokenizer).model.save_pretrained(body)
    tokenizer.save_pretrained(body)
    torch.manual_seed(3)
    head = [
        Pooling(24, "mean"),
        Dense(24, 24, activation_function=torch.nn.GELU(), use_residual=True),
        LayerNorm(24),
        Dense(24, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    oracle.CrossEncoder(modules=[Transformer(str(body)), *head], device="cpu").save_pretrained(str(folder))


def _with_key(kind: str, **keys: Any) -> Callable[[Path], None]:
    """Save a folder that names its activation as older versions did."""

    def write(folder: Path) -> None:
        save_folder(folder, kind)
        edit_json(folder / "config.json", **keys)

    return write


def _plain(kind: str, **changes: Any) -> Callable[[Path], object]:
    return lambda folder: save_folder(folder, kind, **changes)


def _pretrained(folder: Path) -> None:
    """Put a fresh head on a pretrained MiniLM body."""
    torch.manual_seed(0)
    model = oracle.CrossEncoder(os.environ[MINILM], num_labels=1, device="cpu")
    with torch.no_grad():
        model.model.classifier.weight.mul_(10)
    model.save_pretrained(str(folder))


IDENTITY = "torch.nn.modules.linear.Identity"
CASES = {
    "bert": Case(_by_library, scores=_sigmoid),
    "camembert": Case(_with_key("camembert", sbert_ce_default_activation_function=IDENTITY), scores=_sigmoid),
    "deberta": Case(_plain("deberta", num_labels=3), ("--gains", "0,0.5,1"), _expected(0, 0.5, 1)),
    "distilbert": Case(_plain("distilbert", num_labels=2), (), _expected(0, 1)),
    "electra": Case(_plain("electra", **THREE), (), _expected(0, 0.5, 1)),
    "minilm": Case(_pretrained),
    "modernbert": Case(_plain("modernbert")),
    "modernbert-modules": Case(_with_modules),
    "mpnet": Case(_plain("mpnet", padding_side="left"), batch=1),
    "roberta": Case(_with_key("roberta", sentence_transformers={"activation_fn": IDENTITY}), scores=_sigmoid),
    "xlm-roberta": Case(_plain("xlm-roberta")),
}


def asked(product: Product) -> dict[str, str]:
    """A product as a client sends it."""
    return {name: text for name, text in product._asdict().items() if text} or {"title": ""}


def second_text(product: Product) -> str:
    """The text that a product is to the model."""
    parts = (product.title, product.brand, product.color, product.text)
    return " ".join(part.strip() for part in parts if part.strip())


WITHOUT = pytest.mark.skipif(
    MINILM not in os.environ,
    reason=f"{MINILM} names no folder of all-MiniLM-L6-v2: no pretrained weights (issue 18)",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[WITHOUT] if name == "minilm" else []) for name in CASES]
)
def test_scores_are_the_oracles(name: str, tmp_path: Path) -> None:
    """Fields are joined, texts are odd, long and empty; the scores of the service are the library's within 1e-4."""
    case, folder, out = CASES[name], tmp_path / "mine", tmp_path / "out"
    case.write(folder)
    options = ("--name", "mine", "--out", str(out), "--precision", "fp32", *case.options)
    assert main(["import", str(folder), *options]) == 0

    model = oracle.CrossEncoder(str(folder), device="cpu")
    with Served(
        create_app(Settings(models_root=out, bundle="mine", workers=1, default_budget_ms=60_000))
    ) as served:
        for query in QUERIES:
            pairs = [(query, second_text(product)) for product in PRODUCTS]
            expected = case.scores(np.asarray(model.predict(pairs, batch_size=case.batch), np.float64))
            answer = served.post({"query": query, "documents": [asked(product) for product in PRODUCTS]})
            found = {result["index"]: result["relevance_score"] for result in answer.json["results"]}

            assert np.ptp(expected) > 100 * CLOSE  # or else everything would agree
            assert [found[place] for place in range(len(PRODUCTS))] == pytest.approx(expected, abs=CLOSE)
