"""Distil the teacher into the student: margin-MSE over all product pairs of a query, or another loss.

Knows grouped batches and the losses; does not know where the teacher's scores come from.
Invariant: the loss sees the scores of label or blend (or, for a baseline, labels alone), never a held-out query.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import BertModel

from bundle.text import PairEncoder
from training.data.augment import product_line
from training.data.lists import JudgedList, by_list, encode_lists, product_of, rankable, read_lists
from training.errors import StageError
from training.measure.metrics import ndcg
from training.models.losses import STUDENT_LOSSES, pointwise_mse
from training.models.trainer import Chunked, EarlyStop, Fitted, Loss, fit
from training.sections.student import DistilRecipe
from training.stages import Context, Metrics
from training.student import student
from training.student.groups import Dealing, Group, GroupStream, Row, TaughtPairs, groups_of
from training.student.reduce import StateDistance
from training.student.student import Student
from training.teacher.label import JUDGED_RANK

LABEL_FLOOR = 0.02  # a certain label's log-odds would be infinite


class GroupCollator:
    """Makes one batch of several queries: every pair encoded in one forward, scores [queries, longest]."""

    def __init__(self, made: Student) -> None:
        self.made = made

    def __call__(self, batch: Sequence[Group]) -> dict[str, Tensor]:
        """Return input tensors of all pairs plus `teacher` and `mask`, both [queries, longest group]."""
        rows = []
        width = max(len(one.products) for one in batch)
        scores = torch.zeros(len(batch), width)
        mask = torch.zeros(len(batch), width, dtype=torch.bool)
        for place, one in enumerate(batch):
            rows += self.made.encoder.encode(one.query, [product_of(row) for row in one.products])
            scores[place, : len(one.scores)] = torch.tensor(one.scores)
            mask[place, : len(one.scores)] = True
        return self.made.tensors(rows) | {"teacher": scores, "mask": mask}


def student_loss(logits: Tensor, *, teacher: Tensor, mask: Tensor, recipe: DistilRecipe) -> Tensor:
    """Return the recipe's loss between student and teacher scores.

    Shapes: logits [pairs], in the order of the true entries of mask; teacher and mask [queries, products].
    """
    scores = torch.zeros_like(teacher).masked_scatter(mask, logits)
    level = pointwise_mse(scores, teacher, mask) if recipe.pointwise else 0.0
    if recipe.loss == "margin_mse" and recipe.margin == "probability":
        scores, teacher = scores.sigmoid(), teacher.sigmoid()
    return STUDENT_LOSSES[recipe.loss](scores, teacher, mask) + recipe.pointwise * level


def train(
    made: Student,
    groups: Sequence[Group] | GroupStream,
    recipe: DistilRecipe,
    scratch: Path,
    seed: int,
    *,
    lists: Sequence[JudgedList] = (),
) -> Fitted:
    """Train the student in place; resumes from the newest checkpoint in `scratch`.

    With `recipe.patience` it is measured on `lists` at each checkpoint, and the best one is kept.
    """
    stop = EarlyStop(_ndcg_on(made, lists), recipe.patience) if recipe.patience else None
    loss = partial(student_loss, recipe=recipe)
    return _fit(made.model, made, groups, loss, recipe, scratch=scratch, seed=seed, stop=stop)


def _fit(
    model: nn.Module,
    made: Student,
    groups: Sequence[Group] | GroupStream,
    loss: Loss,
    recipe: DistilRecipe,
    *,
    scratch: Path,
    seed: int,
    stop: EarlyStop | None = None,
) -> Fitted:
    """Train `model`, which is the student or holds its body, on the student's groups."""
    return fit(
        Chunked(model, recipe.chunk),
        groups,
        GroupCollator(made),
        loss,
        targets=("teacher", "mask"),
        schedule=recipe,
        batch_items=recipe.queries_per_batch,
        scratch=scratch,
        seed=seed,
        stop=stop,
        save_steps=recipe.checkpoint_steps,
        logging_steps=50,
    )


def _ndcg_on(made: Student, lists: Sequence[JudgedList]) -> Callable[[], float]:
    """Return a function that measures the student as it is: mean NDCG@10 over the lists."""
    if not lists:
        raise StageError("distil.patience needs validation lists to stop by; hold out a larger share")
    rows = encode_lists(made.encoder, lists)

    def measure() -> float:
        scores = by_list(made.score(rows), lists)
        return float(np.mean([ndcg(s, judged.gains, 10) for s, judged in zip(scores, lists, strict=True)]))

    return measure


def align(
    made: Student,
    large: BertModel,
    groups: Sequence[Group] | GroupStream,
    recipe: DistilRecipe,
    *,
    scratch: Path,
    seed: int,
) -> float:
    """Bring a reduced body's token states near those of the body it was cut from; returns the mean distance.

    The aligned body is kept in `scratch`, so that a run killed later does not align again.
    """
    done = scratch / "aligned.safetensors"
    body = made.model.bert
    if done.is_file():
        load_model(body, done)
        return 0.0
    schedule = recipe.model_copy(
        update={"epochs": recipe.align_epochs, "learning_rate": recipe.align_learning_rate}
    )
    layers = recipe.layers or tuple(range(large.config.num_hidden_layers))
    distance = StateDistance(body, large, layers)
    fitted = _fit(distance, made, groups, _mean_distance, schedule, scratch=scratch / "align", seed=seed)
    save_model(body, part := done.with_suffix(".part"))
    os.replace(part, done)
    shutil.rmtree(scratch / "align")
    return fitted.loss


def _mean_distance(distances: Tensor, **_: Tensor) -> Tensor:
    return distances.mean()


@torch.no_grad()
def average(made: Student, folders: Sequence[str]) -> None:
    """Give the student the mean of its weights and those of finished students: Wortsman et al., ICML 2022.

    Students that began from one body and learnt from different labels lie near enough for it; the mean
    costs nothing at serving time. StageError if one has another shape, vocabulary or text contract.
    """
    others = [student.load(Path(folder)) for folder in folders]
    for folder, other in zip(folders, others, strict=True):
        if other.contract != made.contract or _shapes(other) != _shapes(made):
            raise StageError(
                f"distil.average_with: {folder} has another shape or text contract than this student"
            )
    for name, weight in made.model.named_parameters():
        weights = [weight, *(dict(other.model.named_parameters())[name] for other in others)]
        weight.copy_(torch.stack(weights).mean(dim=0))


def _shapes(made: Student) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in made.model.named_parameters()}


def taught_pairs(context: Context) -> TaughtPairs:
    """Return the pairs that the teacher scored in the recipe's column; pairs it lacks are left out."""
    recipe = context.recipe.distil
    shards = context.inputs("label" if context.recipe.blend is None else "blend") / "shards"
    return TaughtPairs(sorted(shards.glob("*.parquet")), recipe.column, recipe.max_queries, context.seed)


def labelled_rows(context: Context) -> list[Row]:
    """Return the human-labelled train pairs, the log-odds of their target as `logit`; 0 and 1 become 0.02 and 0.98."""
    recipe = context.recipe.distil
    train = pq.read_table(context.inputs("data") / "pairs.parquet", filters=[("split", "=", "train")])
    rows = sorted(train.to_pylist(), key=lambda row: (row["dataset"], row["query_id"], row["product_id"]))
    told = [row["target"] if recipe.targets == "soft" else float(row["target"] == 1.0) for row in rows]
    targets = np.clip(told, LABEL_FLOOR, 1 - LABEL_FLOOR)
    return [
        row | {"logit": float(z), "rank": JUDGED_RANK}
        for row, z in zip(rows, np.log(targets / (1 - targets)), strict=True)
    ]


def run(context: Context) -> Metrics:
    """Write the student folder."""
    recipe = context.recipe.distil
    torch.manual_seed(context.seed)
    least = 1 if recipe.loss.startswith("pointwise") else 2
    dealing = Dealing(recipe.group, least, recipe.list_repeat)
    groups: Sequence[Group] | GroupStream
    if recipe.learn_from == "labels":
        pairs: Sequence[Row] | TaughtPairs = labelled_rows(context)
        rows: Iterable[Row] = pairs
    else:
        pairs = taught_pairs(context)
        rows = pairs.rows() if recipe.stream else list(pairs.rows())
    if recipe.stream:
        assert isinstance(pairs, TaughtPairs)
        groups = GroupStream(pairs, dealing, context.seed, recipe.shuffle_groups)
    else:
        groups = groups_of(rows, dealing, context.seed)
    texts = (f"{row['query']} {product_line(row)}" for row in rows)
    model, tokenizer = student.build(recipe, context.weights(recipe.model), texts)
    contract = student.text_contract(context.recipe.text, tokenizer)
    encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), contract)
    made = Student(model, encoder, contract)
    metrics: dict[str, float] = {"pairs": len(pairs), "groups": len(groups)}
    if recipe.align_epochs:
        large = student.load_body(context.weights(recipe.model), recipe.model)
        metrics["align_loss"] = round(
            align(made, large, groups, recipe, scratch=context.scratch, seed=context.seed), 5
        )
    lists = (
        rankable(read_lists(context.inputs("data") / "pairs.parquet", "validation"))
        if recipe.patience
        else ()
    )
    fitted = train(made, groups, recipe, context.scratch, context.seed, lists=lists)
    average(made, recipe.average_with)
    student.save(model, tokenizer, contract, context.out)
    if fitted.best is not None:
        metrics |= {"best_ndcg": round(fitted.best, 4), "steps": fitted.steps}
    return metrics | {"train_loss": round(fitted.loss, 5)}
