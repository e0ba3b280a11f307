"""Distil the teacher into the student: margin-MSE over all product pairs of a query, or another loss.

Knows grouped batches and the losses; does not know where the teacher's scores come from.
Invariant: the loss sees the scores of label or blend (or, for a baseline, labels alone), never a held-out query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bundle.text import PairEncoder
from training import student
from training.augment import UNLABELLED, product_line
from training.label import JUDGED_RANK
from training.lists import product_of
from training.losses import STUDENT_LOSSES, pointwise_mse
from training.stages import StageError
from training.student import Student
from training.student_sections import DistilRecipe
from training.trainer import Chunked, fit

if TYPE_CHECKING:
    from training.stages import Context, Metrics

LABEL_FLOOR = 0.02  # a certain label's log-odds would be infinite

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """One query's products with the teacher's scores, in order."""

    query: str
    products: tuple[Row, ...]
    scores: tuple[float, ...]


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


def groups_of(rows: Sequence[Row], size: int, seed: int, least: int = 2) -> list[Group]:
    """Group rows that hold a `logit` by query; rows of one query must be neighbours.

    A longer list is dealt out at random into groups of at most `size`, so that an epoch sees each pair once.
    A group of fewer than `least` is dropped: a product alone has no margin.
    """
    groups = []
    for place, (_, members) in enumerate(groupby(rows, key=lambda row: row["query_id"])):
        each = list(members)
        parts = -(-len(each) // size)
        order = np.random.default_rng([seed, place]).permutation(len(each))
        for part in range(parts):
            dealt = [each[i] for i in order[part::parts]]
            if len(dealt) >= least:
                groups.append(Group(dealt[0]["query"], tuple(dealt), tuple(row["logit"] for row in dealt)))
    return groups


def train(made: Student, groups: Sequence[Group], recipe: DistilRecipe, scratch: Path, seed: int) -> float:
    """Train the student in place and return its mean loss; resumes from the newest checkpoint in `scratch`."""
    return fit(
        Chunked(made.model, recipe.chunk),
        groups,
        GroupCollator(made),
        partial(student_loss, recipe=recipe),
        targets=("teacher", "mask"),
        schedule=recipe,
        batch_items=recipe.queries_per_batch,
        scratch=scratch,
        seed=seed,
        save_steps=recipe.checkpoint_steps,
        logging_steps=50,
    )


def taught_rows(context: Context) -> list[Row]:
    """Return the pairs that the teacher scored, with the recipe's column as `logit`; pairs it lacks are left out."""
    recipe = context.recipe.distil
    shards = context.inputs("label" if context.recipe.blend is None else "blend") / "shards"
    table = pa.concat_tables([pq.read_table(shard) for shard in sorted(shards.glob("*.parquet"))])
    if recipe.column not in table.column_names:
        raise StageError(
            f"distil.column {recipe.column!r} is not among the labels' columns: {', '.join(table.column_names)}"
        )
    scores = table[recipe.column].to_pylist()
    rows = table.select(UNLABELLED.names).to_pylist()
    taught = [row | {"logit": score} for row, score in zip(rows, scores, strict=True) if score is not None]
    return some_queries(taught, recipe.max_queries, context.seed)


def some_queries(rows: list[Row], count: int, seed: int) -> list[Row]:
    """Keep the rows of `count` queries drawn by the seed, in their order; 0 keeps all."""
    queries = list(dict.fromkeys(row["query_id"] for row in rows))
    if not 0 < count < len(queries):
        return rows
    drawn = np.random.default_rng(seed).choice(len(queries), size=count, replace=False)
    kept = {queries[place] for place in drawn}
    return [row for row in rows if row["query_id"] in kept]


def labelled_rows(context: Context) -> list[Row]:
    """Return the human-labelled train pairs, their soft target's log-odds as `logit`; 0 and 1 become 0.02 and 0.98."""
    train = pq.read_table(context.inputs("data") / "pairs.parquet", filters=[("split", "=", "train")])
    rows = sorted(train.to_pylist(), key=lambda row: (row["dataset"], row["query_id"], row["product_id"]))
    targets = np.clip([row["target"] for row in rows], LABEL_FLOOR, 1 - LABEL_FLOOR)
    return [
        row | {"logit": float(z), "rank": JUDGED_RANK}
        for row, z in zip(rows, np.log(targets / (1 - targets)), strict=True)
    ]


def run(context: Context) -> Metrics:
    """Write the student folder."""
    recipe = context.recipe.distil
    torch.manual_seed(context.seed)
    rows = labelled_rows(context) if recipe.learn_from == "labels" else taught_rows(context)
    least = 1 if recipe.loss.startswith("pointwise") else 2
    groups = groups_of(rows, recipe.group, context.seed, least)
    lists = [row for row in rows if row["rank"] == JUDGED_RANK]
    for again in range(1, recipe.list_repeat):
        groups += groups_of(lists, recipe.group, context.seed + again, least)
    texts = (f"{row['query']} {product_line(row)}" for row in rows)
    model, tokenizer = student.build(recipe, context.weights(recipe.model), texts)
    contract = student.text_contract(context.recipe.text, tokenizer)
    encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), contract)
    made = Student(model, encoder, contract)
    loss = train(made, groups, recipe, context.scratch, context.seed)
    student.save(model, tokenizer, contract, context.out)
    return {"pairs": len(rows), "groups": len(groups), "train_loss": round(loss, 5)}
