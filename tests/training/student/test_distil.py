"""Distillation on tiny models: batches, learning, resumption and the student folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from transformers import BertModel  # noqa: E402

from bundle.text import PairEncoder  # noqa: E402
from training.data import synthetic  # noqa: E402
from training.data.augment import UNLABELLED  # noqa: E402
from training.data.lists import by_list, encode_lists, product_of, rankable, read_lists  # noqa: E402
from training.errors import StageError  # noqa: E402
from training.measure.metrics import ndcg  # noqa: E402
from training.models.losses import margin_mse  # noqa: E402
from training.models.trainer import Chunked  # noqa: E402
from training.sections.models import FreshRecipe  # noqa: E402
from training.sections.student import DistilRecipe, FieldRecipe, TextRecipe  # noqa: E402
from training.student import distil, student  # noqa: E402
from training.student.distil import GroupCollator, align, average, labelled_rows, train  # noqa: E402
from training.student.groups import Dealing, Group, GroupStream, TaughtPairs, groups_of  # noqa: E402
from training.student.student import Student  # noqa: E402

SHAPE = FreshRecipe(hidden=32, layers=2, heads=2, vocabulary=300)
FIELDS = (
    FieldRecipe(name="title", max_chars=100, max_tokens=16),
    FieldRecipe(name="color", max_chars=20, max_tokens=2),
)
TEXT = TextRecipe(query_max_tokens=8, max_length=32, fields=FIELDS)
RECIPE = DistilRecipe(
    fresh=SHAPE, group=6, queries_per_batch=4, epochs=6, learning_rate=3e-3, checkpoint_steps=10
)


def labelled(queries: int = 10) -> list[dict]:
    """Synthetic pairs with an invented teacher: a logit by class."""
    logits = {"E": 2.0, "S": 0.5, "C": -1.0, "I": -3.0}
    return [row | {"logit": logits[row["label"]], "rank": 0} for row in synthetic.judged_pairs(3, queries)]


def made(recipe: DistilRecipe = RECIPE, weights: str = "") -> tuple[Student, object]:
    """An untrained student and its tokenizer."""
    torch.manual_seed(0)
    model, tokenizer = student.build(recipe, weights, (f"{r['query']} {r['title']}" for r in labelled()))
    contract = student.text_contract(TEXT, tokenizer)
    encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), contract)
    return Student(model, encoder, contract), tokenizer


def test_batches_keep_scores_beside_their_pairs() -> None:
    """Each mask entry stands for one encoded pair, in order, and long lists are sampled to the group size."""
    one, _ = made()
    groups = groups_of(labelled(3), Dealing(6), seed=0)
    long, short = groups[0], Group("red shoes", groups[1].products[:2], groups[1].scores[:2])
    batch = GroupCollator(one)([short, long])

    assert batch["mask"].sum() == len(batch["input_ids"]) == 2 + len(long.products)
    assert batch["teacher"][0, :2].tolist() == list(short.scores)
    assert batch["teacher"][1].tolist() == list(long.scores)
    assert not batch["mask"][0, 2:].any()


def test_chunks_give_the_logits_of_one_padded_batch() -> None:
    """Computing a batch in chunks by length changes neither values, nor order, nor gradients."""
    one, _ = made()
    one.model.eval()
    batch = GroupCollator(one)(groups_of(labelled(4), Dealing(6), seed=0))
    inputs = {name: values for name, values in batch.items() if name not in ("teacher", "mask")}
    whole = one.model(**inputs).logits[:, 0]
    whole.square().sum().backward()
    wanted = one.model.classifier.weight.grad.clone()
    one.model.zero_grad()

    chunked = Chunked(one.model, 5)(**inputs)["logits"][:, 0]
    chunked.square().sum().backward()

    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.model.classifier.weight.grad, wanted, atol=1e-4, rtol=1e-4)


def test_long_lists_are_dealt_into_groups_once() -> None:
    """Every pair of a list lies in one group of at most the given size; a single product gives none."""
    rows = labelled(4)
    groups = groups_of(rows, Dealing(6), seed=0)

    assert max(len(one.products) for one in groups) <= 6
    assert sorted(r["product_id"] for g in groups for r in g.products) == sorted(
        r["product_id"] for r in rows
    )
    assert groups_of(rows[:1], Dealing(6), seed=0) == []


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"margin": "probability"},
        {"loss": "listwise_kl"},
        {"loss": "pointwise_mse"},
        {"loss": "pointwise_bce"},
        {"pointwise": 0.1},
    ],
    ids=str,
)
def test_training_approaches_the_teacher(tmp_path: Path, choice: dict) -> None:
    """Under every loss the student orders pairs as the teacher does far better after training than before."""
    one, _ = made()
    rows = labelled()
    encoded = [r for row in rows for r in one.encoder.encode(row["query"], [product_of(row)])]
    wanted = torch.tensor([row["logit"] for row in rows])[None]

    def loss() -> float:
        one.model.eval()
        scores = torch.from_numpy(one.score(encoded))[None]
        return margin_mse(scores, wanted, torch.ones_like(wanted, dtype=torch.bool)).item()

    before = loss()
    longer = RECIPE.model_copy(update={"epochs": 40.0, **choice})
    train(one, groups_of(rows, Dealing(6), seed=0), longer, tmp_path, seed=1)

    assert loss() < 0.75 * before


def test_a_baseline_learns_from_human_labels_alone(context: Callable[..., Any]) -> None:
    """Train pairs come with their soft target's log-odds; nothing of the held-out splits is among them."""
    rows = labelled_rows(context("distil", "distil.learn_from=labels"))

    assert {row["split"] for row in rows} == {"train"}
    for row in rows:
        expected = {0.0: -3.9, 0.5: 0.0, 1.0: 3.9}[row["target"]]
        assert row["logit"] == pytest.approx(expected, abs=0.01)


def test_only_pointwise_losses_keep_a_product_alone() -> None:
    """A query with one product has no margin, but it has a level."""
    rows = labelled(2)[:1]

    assert [len(group.products) for group in groups_of(rows, Dealing(6, least=1), seed=0)] == [1]
    assert groups_of(rows, Dealing(6), seed=0) == []


def train_until_killed(
    parted: Student,
    groups: list[Group] | GroupStream,
    recipe: DistilRecipe,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Train, and be killed at the seventh batch."""
    collate, batches = GroupCollator.__call__, []

    def killed(self: GroupCollator, batch: list[Group]) -> dict:
        batches.append(batch)
        if len(batches) == 7:
            raise KeyboardInterrupt
        return collate(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(GroupCollator, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            train(parted, groups, recipe, scratch, seed=1)


def test_resumed_training_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed after its first checkpoint and started again ends with the very same weights."""
    groups = groups_of(labelled(8), Dealing(6), seed=0)
    recipe = RECIPE.model_copy(update={"epochs": 3.0, "checkpoint_steps": 4})
    whole, parted, again = (made()[0] for _ in range(3))
    train(whole, groups, recipe, tmp_path / "whole", seed=1)
    train_until_killed(parted, groups, recipe, tmp_path / "parted", monkeypatch)
    train(again, groups, recipe, tmp_path / "parted", seed=1)

    assert not torch.equal(parted.model.classifier.weight, whole.model.classifier.weight)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_saved_student_scores_alike(tmp_path: Path) -> None:
    """A reloaded folder gives the same logits, and scores do not depend on batch-mates."""
    one, tokenizer = made()
    one.model.eval()
    student.save(one.model, tokenizer, one.contract, tmp_path)
    again = student.load(tmp_path)
    rows = again.encoder.encode("red shoes", [product_of(row) for row in labelled(4)])

    np.testing.assert_allclose(again.score(rows), one.score(rows), atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate([again.score([row]) for row in rows]), again.score(rows), atol=1e-5
    )


def test_chosen_layers_of_a_body_are_kept(tmp_path: Path) -> None:
    """A student made from a pretrained body holds just the layers the recipe names."""
    whole, tokenizer = made(RECIPE.model_copy(update={"fresh": SHAPE.model_copy(update={"layers": 3})}))
    whole.model.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    model, _ = student.build(RECIPE.model_copy(update={"model": "body", "layers": (0, 2)}), str(tmp_path), [])

    body = BertModel.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 2
    kept = model.bert.encoder.layer[1].attention.self.query.weight
    assert torch.equal(kept, body.encoder.layer[2].attention.self.query.weight)


def test_a_narrower_student_starts_near_the_body_it_was_cut_from(tmp_path: Path) -> None:
    """Width and depth are those of the recipe; aligning lowers the distance, is kept, and is not done twice."""
    whole, tokenizer = made(
        RECIPE.model_copy(update={"fresh": SHAPE.model_copy(update={"layers": 3, "heads": 4})})
    )
    whole.model.bert.save_pretrained(tmp_path / "body")
    tokenizer.save_pretrained(tmp_path / "body")
    recipe = RECIPE.model_copy(
        update={"model": "body", "layers": (0, 2), "hidden": 16, "align_epochs": 8.0, "checkpoint_steps": 2}
    )
    one, _ = made(recipe, str(tmp_path / "body"))
    assert (one.model.config.hidden_size, one.model.config.num_hidden_layers) == (16, 2)
    groups = groups_of(labelled(), Dealing(6), seed=0)
    large = student.load_body(str(tmp_path / "body"), "body")
    before = one.model.bert.encoder.layer[0].output.dense.weight.clone()

    short = recipe.model_copy(update={"align_epochs": 0.1})
    first = align(one, large, groups, short, scratch=tmp_path / "short", seed=1)
    last = align(one, large, groups, recipe, scratch=tmp_path / "s", seed=1)
    aligned = one.model.bert.encoder.layer[0].output.dense.weight.clone()
    again, _ = made(recipe, str(tmp_path / "body"))
    align(again, large, groups, recipe, scratch=tmp_path / "s", seed=1)

    assert last < first
    assert not torch.equal(before, aligned)
    assert torch.equal(again.model.bert.encoder.layer[0].output.dense.weight, aligned)
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["aligned.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 15}, "distil.hidden: 15 is not a multiple of 16"),
        ({"layers": (0, 7)}, "body has 2 layers"),
    ],
)
def test_a_shape_that_the_body_does_not_have_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    """The message names the key and what the body has."""
    whole, tokenizer = made()
    whole.model.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    with pytest.raises(StageError, match=message):
        student.build(RECIPE.model_copy(update={"model": "body", **change}), str(tmp_path), ["red shoes"])


def test_training_stops_at_its_best_on_the_validation_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the measure has not risen for `patience` checkpoints training ends, with the weights of the best."""
    one, _ = made()
    found, weights = iter([0.3, 0.5, 0.4, 0.45, 0.9]), []

    def measured(made: Student, _lists: object) -> Callable[[], float]:
        def measure() -> float:
            assert not made.model.training
            weights.append(made.model.classifier.weight.clone())
            return next(found)

        return measure

    monkeypatch.setattr(distil, "_ndcg_on", measured)
    recipe = RECIPE.model_copy(update={"epochs": 50.0, "checkpoint_steps": 2, "patience": 2})
    fitted = train(one, groups_of(labelled(8), Dealing(6), seed=0), recipe, tmp_path, seed=1)

    assert (fitted.steps, fitted.best) == (8, 0.5)
    assert torch.equal(one.model.classifier.weight, weights[1])


def test_the_measure_to_stop_by_is_ndcg_of_the_student_as_it_is(context: Callable[..., Any]) -> None:
    """It is what `metrics.ndcg` says of the lists, and without lists there is nothing to stop by."""
    one, _ = made()
    one.model.eval()
    pairs = context("data").out / "pairs.parquet"
    lists = rankable(read_lists(pairs, "validation"))
    scores = by_list(one.score(encode_lists(one.encoder, lists)), lists)
    wanted = np.mean([ndcg(s, judged.gains, 10) for s, judged in zip(scores, lists, strict=True)])

    assert distil._ndcg_on(one, lists)() == pytest.approx(float(wanted))
    with pytest.raises(StageError, match="patience needs validation lists"):
        distil._ndcg_on(one, [])


def test_a_streamed_training_resumes_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streaming from shards, killed after a checkpoint and started again: the very same weights."""
    shards = []
    rows = [row | {"query_source": "s"} for row in labelled(8)]
    for number, half in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        shards.append(tmp_path / f"labels-{number:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(half).select([*UNLABELLED.names, "logit"]), shards[-1])
    recipe = RECIPE.model_copy(update={"epochs": 3.0, "checkpoint_steps": 4, "stream": True})

    def stream() -> GroupStream:
        return GroupStream(TaughtPairs(shards, "logit", 0, 1), Dealing(6), seed=1, buffer=4)

    whole, parted, again = (made()[0] for _ in range(3))
    train(whole, stream(), recipe, tmp_path / "whole", seed=1)
    train_until_killed(parted, stream(), recipe, tmp_path / "parted", monkeypatch)
    train(again, stream(), recipe, tmp_path / "parted", seed=1)

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_the_mean_of_two_students_is_that_of_their_weights(tmp_path: Path) -> None:
    """Every weight is the mean; a student of another shape is refused by its folder."""
    one, tokenizer = made()
    two, _ = made()
    with torch.no_grad():
        for weight in two.model.parameters():
            weight.add_(1.0)
    student.save(two.model, tokenizer, two.contract, tmp_path / "two")
    before = [weight.clone() for weight in one.model.parameters()]

    average(one, [str(tmp_path / "two")])

    for old, new in zip(before, one.model.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.5)
    other, tokenizer = made(RECIPE.model_copy(update={"fresh": SHAPE.model_copy(update={"layers": 1})}))
    student.save(other.model, tokenizer, other.contract, tmp_path / "other")
    with pytest.raises(StageError, match="other has another shape"):
        average(one, [str(tmp_path / "other")])
