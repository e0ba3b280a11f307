"""An import with judgements: int8 behind its gate, calibrated scores, figures and a card that says so."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pytest.importorskip("pyarrow", reason="the training environment is not installed")

from bundle import read_bundle
from bundle.store import Bundle
from bundle.verify import verify_bundle
from tests.training.importing.folders import save_folder
from training.__main__ import main
from training.data.lists import rankable
from training.models.runtime import OrtSession
from training.pack import graphs
from training.pack.trial import own_lists

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of BERT's architecture."""
    return save_folder(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="module")
def judgments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a search team has: queries, products and grades in a CSV."""
    path = tmp_path_factory.mktemp("shop") / "grades.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "title", "brand", "color", "grade"])
        for judged in rankable(own_lists()):
            for product, grade in zip(judged.products, judged.grades, strict=True):
                writer.writerow([judged.query, product.title, product.brand, product.color, grade])
    return path


@pytest.fixture(scope="module")
def out(folder: Path, judgments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a bundle of int8 and fp32 was written, with judgements; nobody may write to it."""
    root = tmp_path_factory.mktemp("out")
    options = ("--name", "shop", "--out", str(root), "--pairs", str(judgments), "--precision", "int8,fp32")
    assert main(["import", str(folder), *options, "--licence", "Apache-2.0"]) == 0
    return root


@pytest.fixture(scope="module")
def bundle(out: Path) -> Bundle:
    """That bundle."""
    return read_bundle(out, "shop")


def test_both_graphs_serve(bundle: Bundle) -> None:
    """int8 is the default, the native engine has its layout, and each graph proves itself as at a start."""
    assert bundle.manifest.default_precision == "int8"
    assert bundle.manifest.graph("int8").layout is not None
    for precision in ("int8", "fp32"):
        verify_bundle(bundle, OrtSession, precision)


def test_what_was_measured_is_told(bundle: Bundle) -> None:
    """The manifest has parity, fidelity and figures of each graph, and scores to compare traffic with."""
    gates, rows = bundle.manifest.gates, bundle.manifest.quality.rows

    assert gates["fp32 parity"] < 1e-4
    assert gates["int8 batch drift"] == 0
    assert gates["int8 list spearman"] > 0.98
    assert {row.model for row in rows if row.metric == "ndcg@10"} == {"shop int8", "shop fp32"}
    assert bundle.manifest.reference is not None


def test_scores_are_calibrated(bundle: Bundle) -> None:
    """The classes are those of the grades, not the model's own yes and no."""
    assert [label.name for label in bundle.manifest.labels] == [
        "irrelevant",
        "complement",
        "substitute",
        "exact",
    ]


def test_the_card_says_what_was_decided(bundle: Bundle) -> None:
    """Text, score, origin and licence are on it, and nothing of a teacher."""
    card = bundle.files["card.md"].decode()

    assert "title, brand, color" in card
    assert "judged pairs of 12 queries" in card
    assert "Apache-2.0" in card
    assert "distilled" not in card


def test_a_bundle_is_not_overwritten(out: Path, folder: Path, refused: Refused) -> None:
    """A name that is taken is refused before any work."""
    before = (out / "shop" / "manifest.json").read_bytes()

    assert "--replace" in refused("import", str(folder), "--name", "shop", "--out", str(out))
    assert (out / "shop" / "manifest.json").read_bytes() == before


def test_int8_that_ranks_otherwise_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind a limit that it cannot keep, fp32 is served, and the output and the card say why."""
    monkeypatch.setattr(graphs, "LEAST_SPEARMAN", 1.1)
    assert main(["import", str(folder), "--name", "exact", "--out", str(tmp_path)]) == 0
    bundle = read_bundle(tmp_path, "exact")

    assert [graph.precision for graph in bundle.manifest.graphs] == ["fp32"]
    for told in (capsys.readouterr().out, bundle.files["card.md"].decode()):
        assert "int8 does not rank as fp32 does (list spearman 0.9" in told
    assert np.isfinite(bundle.manifest.gates["int8 list spearman"])
