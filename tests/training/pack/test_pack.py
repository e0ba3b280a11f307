"""From a distilled student to evaluation, card and a verified bundle."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import numpy as np
from tokenizers import Tokenizer

from bundle.errors import GoldenMismatch
from bundle.manifest import Calibration, QualityRow
from bundle.store import read_bundle
from bundle.verify import read_golden, verify_bundle
from tests.training import support
from training.data.golden import golden_pairs
from training.data.lists import read_lists
from training.evaluate import evaluate
from training.export import export, quantize
from training.models.runtime import OrtSession
from training.pack import pack
from training.pack.assemble import strip_tokenizer

CARD = ("bundle.licences=['Apache-2.0']", "bundle.data=['Invented products.']")
Make = Callable[..., Any]
OVERRIDES = (
    "quantize.min_spearman=0.9",
    "quantize.min_pair_order=0.9",
    "quantize.max_rms=0.3",
    "quantize.max_ndcg_drop=0.5",
    "quantize.max_ece_rise=0.2",
    "quantize.min_list_spearman=0.9",
    "quantize.max_dataset_ndcg_drop=0.5",
)


@pytest.fixture(scope="module")
def packed(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The context of a bundle stage that has run, with all stages before it."""
    root = support.copy_run(exported, tmp_path_factory.mktemp("packed") / "run")
    (support.make_context(root, "calibrate").out / "calibration.json").write_text(
        Calibration(method="ordinal", slope=1.0, thresholds=(-1.0, 0.0, 1.0)).model_dump_json()
    )
    quantize.run(support.make_context(root, "quantize", *OVERRIDES))
    evaluate.run(support.make_context(root, "evaluate", *OVERRIDES))
    made = support.make_context(root, "bundle", *OVERRIDES, *CARD)
    pack.run(made)
    return made


def test_bundle_is_complete_and_verified(packed: Any) -> None:
    """The bundle reads back, its int8 graph passes the golden rows, and the manifest tells the whole story."""
    bundle = read_bundle(packed.out, "tiny")
    session = verify_bundle(bundle, OrtSession)
    manifest = bundle.manifest
    models = {row.model for row in manifest.quality.rows}

    assert set(bundle.files) == {"card.md", "golden.jsonl", "model.int8.onnx", "tokenizer.json"}
    assert [spec.name for spec in session.outputs] == ["logits"]
    assert {"random order", "BM25", "student int8", "student int8 - BM25"} <= models
    assert manifest.gates["int8 batch_drift"] == 0
    assert manifest.provenance.recipe_sha256 == packed.recipe.sha256()


def test_the_bundle_says_how_held_out_pairs_score(packed: Any) -> None:
    """The manifest's reference counts every pair of the held-out lists once, and says that these are the sample."""
    told = read_bundle(packed.out, "tiny").manifest.reference
    pairs = packed.inputs("data") / "pairs.parquet"
    lists = [judged for split in ("validation", "test") for judged in read_lists(pairs, split)]

    assert told is not None
    assert told.sample == f"judged pairs of {len(lists)} of {len(lists)} held-out lists (validation, test)"
    assert told.precision == "int8"
    assert told.pairs == sum(map(len, lists)) == sum(told.scores) == sum(told.classes)


def test_a_half_graph_is_packed_and_proves_itself(packed: Any, tmp_path: Path) -> None:
    """Asked for, the fp16 graph stands beside the default one and passes the same golden rows."""
    root = support.copy_run(packed.out.parent, tmp_path / "run")
    overrides = ("export.fp16=true", "export.fp16_parity=0.05", "bundle.precisions=['fp16', 'fp32']")
    export.run(support.make_context(root, "export", *overrides))
    shutil.rmtree(root / "bundle")
    made = support.make_context(root, "bundle", *overrides, *CARD)
    pack.run(made)
    bundle = read_bundle(made.out, "tiny")

    assert [graph.precision for graph in bundle.manifest.graphs] == ["fp32", "fp16"]
    assert bundle.manifest.default_precision == "fp32"
    assert 0 < bundle.manifest.gates["fp16 parity"] <= 0.05
    assert [spec.name for spec in verify_bundle(bundle, OrtSession, "fp16").outputs] == ["logits"]


def test_golden_rows_hold_the_nasty_ones(packed: Any) -> None:
    """64 rows: empty, emoji, CJK, right-to-left, NUL, 10,000 characters and a lone surrogate among them."""
    rows = read_golden(read_bundle(packed.out, "tiny").files["golden.jsonl"])
    texts = [row.query + row.product.title for row in rows]

    assert len(rows) == 64
    assert any(row.product.title == "" for row in rows)
    assert any(len(text) >= 10_000 for text in texts)
    for mark in ("\x00", "\U0001f381", "園", "خ", "\ud800", "\u202e"):
        assert any(mark in text for text in texts)


def test_several_sets_are_measured_one_by_one_and_together(packed: Any) -> None:
    """Every list counts once in its own set and once in all sets; a set that is alone is not told twice."""
    one = read_lists(packed.inputs("data") / "pairs.parquet", "validation")[:3]
    other = [dataclasses.replace(judged, dataset="other") for judged in one[:2]]

    assert evaluate.by_dataset(one) == {one[0].dataset: [0, 1, 2]}
    assert evaluate.by_dataset([*one, *other]) == {
        one[0].dataset: [0, 1, 2],
        "other": [3, 4],
        evaluate.ALL: [0, 1, 2, 3, 4],
    }


def test_a_changed_graph_fails_the_golden_rows(packed: Any) -> None:
    """Negative control: a session whose logits are all a little higher is found out."""
    bundle = read_bundle(packed.out, "tiny")

    class Shifted(OrtSession):
        """The same graph with every logit 0.5 higher."""

        def run(self, feeds: Any) -> Any:
            return super().run(feeds) + np.float32(0.5)

    with pytest.raises(GoldenMismatch):
        verify_bundle(bundle, Shifted)


def test_a_bundle_that_is_behind_says_so_first(packed: Any, tmp_path: Path) -> None:
    """A student of random weights is behind BM25: the card opens with it, and the stage warns of it."""
    root = support.copy_run(packed.out.parent, tmp_path / "run")
    shutil.rmtree(root / "bundle")
    made = support.make_context(root, "bundle", *OVERRIDES, *CARD)
    told = pack.run(made)
    bundle = read_bundle(made.out, "tiny")
    warning = evaluate.behind(bundle.manifest.quality.rows)

    assert "behind BM25 (NDCG@10 -0." in warning
    assert bundle.files["card.md"].decode().splitlines()[2] == f"> **Warning:** {warning}."
    assert told["warning"] == warning


def test_the_shipped_default_stands_beside_the_student(
    packed: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    """The bundle that the recipe calls shipped is measured on the same lists, with the difference to it."""
    root = support.copy_run(packed.out.parent, tmp_path / "run")
    made = support.make_context(root, "evaluate", *OVERRIDES, f"evaluate.shipped={tiny_bundle / 'tiny'}")
    evaluate.run(made)
    rows = {
        (row["dataset"], row["model"]): row["value"]
        for row in json.loads((made.out / "quality.json").read_text())["rows"]
        if row["metric"] == "ndcg@10"
    }

    ahead = rows["s validation", evaluate.STUDENT] - rows["s validation", evaluate.SHIPPED]
    assert rows["s validation", f"{evaluate.STUDENT} - {evaluate.SHIPPED}"] == pytest.approx(ahead)


def row(model: str, value: float, dataset: str = "a validation", metric: str = "ndcg@10") -> QualityRow:
    """A figure whose interval is 0.01 to each side."""
    return QualityRow(
        dataset=dataset, metric=metric, model=model, value=value, low=value - 0.01, high=value + 0.01, lists=9
    )


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row("student int8 - BM25", 0.1), row("student int8 - teacher", -0.1)], ""),
        ([row("student int8 - BM25", -0.1, "a test"), row("student int8 - BM25", -0.1, metric="ndcg")], ""),
        (
            [row("student int8 - BM25", -0.05), row("student int8 - shipped default", -0.079)],
            (
                "on the validation lists this model is behind BM25 (NDCG@10 -0.0500 [-0.0600, -0.0400], 9 lists) and "
                "shipped default (NDCG@10 -0.0790 [-0.0890, -0.0690], 9 lists)"
            ),
        ),
        ([row("student int8 - BM25", -0.1), row("student int8 - BM25", 0.1, "all sets validation")], ""),
    ],
)
def test_being_behind_is_told_of_what_a_student_has_to_beat(rows: list[QualityRow], told: str) -> None:
    """BM25, the zero-shot encoder and the shipped default count, on validation, of several sets all together."""
    assert evaluate.behind(rows) == told


def test_card_tells_data_quality_and_limits(packed: Any) -> None:
    """The card has the recipe's lines, the quality table with its gain map, and the score's meaning."""
    card = read_bundle(packed.out, "tiny").files["card.md"].decode()

    for told in (
        "Invented products.",
        "Apache-2.0",
        "E 1, S 0.1, C 0.01, I 0",
        "| student int8 |",
        "## Limits",
    ):
        assert told in card


def test_tokenizer_loses_truncation_and_padding(packed: Any) -> None:
    """What training left in tokenizer.json does not reach the bundle."""
    tokenizer = Tokenizer.from_buffer(read_bundle(packed.out, "tiny").files["tokenizer.json"])
    tokenizer.enable_truncation(max_length=4)
    tokenizer.enable_padding(length=9)
    stripped = json.loads(strip_tokenizer(tokenizer.to_str().encode()))

    assert stripped["truncation"] is None
    assert stripped["padding"] is None


def test_evaluation_writes_tables_with_gates(packed: Any) -> None:
    """The quality file has rows for both splits and a gate per paired difference; the tables are beside it."""
    folder = packed.inputs("evaluate")
    told = json.loads((folder / "quality.json").read_text())

    assert {row["dataset"] for row in told["rows"]} == {"s validation", "s test"}
    assert "ndcg@10, student int8 - BM25, low: s validation" in told["gates"]
    assert "| BM25 |" in (folder / "tables.md").read_text()


def test_golden_pairs_are_the_same_every_time() -> None:
    """The golden pairs are a constant of the project."""
    assert golden_pairs() == golden_pairs()
    assert len(golden_pairs()) == 64
