"""The held-out scores of the ensemble and its members, with a real judge and encoder, both tiny."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from tests.training import support  # noqa: E402
from training.data.lists import rankable, read_lists  # noqa: E402
from training.data.sources import write_rows  # noqa: E402
from training.errors import RecipeError  # noqa: E402
from training.evaluate import evaluate  # noqa: E402
from training.recipe import load_recipe  # noqa: E402
from training.teacher import panel  # noqa: E402
from training.teacher.teacher import SCORES  # noqa: E402

Make = Callable[..., Any]


@pytest.fixture
def made(context: Make, tmp_path: Path) -> Any:
    """The context of a panel stage with a judge, a teacher and one encoder."""
    texts = ["red shoes", "blue lamp"]
    support.make_decoder(tmp_path / "decoder", texts)
    support.make_encoder(tmp_path / "encoder", texts)
    encoders = f"blend.encoders=[{{model='{tmp_path / 'encoder'}', weight=2.0}}]"
    options = [f"judge.model={tmp_path / 'decoder'}", "blend.judge=1.0", encoders, "panel.min_pairs=2"]
    for stage in ("judge", "blend", "panel"):
        context(stage, *options)
    made = context("panel", *options)
    pairs = pq.read_table(made.inputs("data") / "pairs.parquet").to_pylist()
    told = [row | {"score": float(len(row["title"]))} for row in pairs if row["split"] != "train"]
    write_rows(told, SCORES, made.inputs("teacher") / "scores.parquet")
    return made


def test_every_held_out_list_has_the_scores_of_every_member(made: Any) -> None:
    """No train pair is scored; the evaluation gets the blend and each member for the lists it measures."""
    panel.run(made)
    found = pq.read_table(made.out / "scores.parquet").to_pylist()
    scores = evaluate.teacher_scores(
        made, rankable(read_lists(made.inputs("data") / "pairs.parquet", "test"))
    )

    assert {row["split"] for row in found} == {"validation", "test"}
    assert list(scores) == ["teacher", "classifier fresh", "judge decoder", "cosine encoder"]
    for values in scores.values():
        assert np.isfinite(np.concatenate(values)).all()
    together = np.concatenate(scores["teacher"])
    assert not np.allclose(together, np.concatenate(scores["classifier fresh"]))


def test_a_killed_panel_scores_no_shard_twice(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge's shards survive a kill: a second run asks it nothing, and the result is the same."""
    panel.run(made)
    first = (made.out / "scores.parquet").read_bytes()
    monkeypatch.setattr(panel, "YesNoJudge", lambda *_: pytest.fail("the judge was loaded again"))

    panel.run(made)

    assert (made.out / "scores.parquet").read_bytes() == first


def test_short_lists_and_train_lists_stay_out() -> None:
    """Only validation and test queries with enough products are scored, each query's rows together."""
    rows = [
        {"split": split, "dataset": "d", "query_id": query, "product_id": str(i)}
        for i in range(3)
        for split, query in (("train", "a"), ("test", "b"), ("validation", "c"))
    ]

    found = panel.held_out_lists([*rows, {**rows[1], "query_id": "short"}], 2)

    assert [row["query_id"] for row in found] == ["b"] * 3 + ["c"] * 3


@pytest.mark.parametrize(
    ("override", "told"),
    [("blend.judge=1.0", r"no \[judge\] section"), ("panel.min_pairs=3", r"no \[blend\]")],
)
def test_a_panel_without_its_members_is_refused(override: str, told: str) -> None:
    """A weight for a judge that is not there, or a panel of nothing, stops at the recipe."""
    with pytest.raises(RecipeError, match=told):
        load_recipe(support.TINY, [override])
