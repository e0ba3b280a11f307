"""Distil the teacher into the student: margin-MSE over all product pairs of a query.

Knows grouped batches and the Trainer; does not know where the teacher's scores come from.
Invariant: the loss sees teacher scores alone, never a human label, and never a held-out query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from bundle.text import PairEncoder
from training import student
from training.augment import product_line
from training.lists import product_of
from training.losses import margin_mse
from training.recipe import DistilRecipe
from training.student import Student

if TYPE_CHECKING:
    from training.stages import Context, Metrics

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


class MarginTrainer(Trainer):
    """Hugging Face's Trainer with the margin-MSE loss."""

    def __init__(self, *arguments: Any, margin: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.margin = margin
        self.model_accepts_loss_kwargs = False  # else the loss is not divided under gradient accumulation

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the Trainer's signature
        **_: Any,
    ) -> Any:
        """Return margin-MSE between the student's logits and the teacher's scores, as logits or probabilities."""
        wanted, mask = inputs.pop("teacher"), inputs.pop("mask")
        outputs = model(**inputs)
        scores = torch.zeros_like(wanted).masked_scatter(mask, outputs.logits[:, 0].float())
        if self.margin == "probability":
            scores, wanted = scores.sigmoid(), wanted.sigmoid()
        loss = margin_mse(scores, wanted, mask)
        return (loss, outputs) if return_outputs else loss


def groups_of(rows: Sequence[Row], size: int, seed: int) -> list[Group]:
    """Group rows that hold a `logit` by query; rows of one query must be neighbours.

    A longer list is dealt out at random into groups of at most `size`, so that an epoch sees each pair once.
    """
    groups = []
    for place, (_, members) in enumerate(groupby(rows, key=lambda row: row["query_id"])):
        each = list(members)
        parts = -(-len(each) // size)
        order = np.random.default_rng([seed, place]).permutation(len(each))
        for part in range(parts):
            dealt = [each[i] for i in order[part::parts]]
            if len(dealt) >= 2:
                groups.append(Group(dealt[0]["query"], tuple(dealt), tuple(row["logit"] for row in dealt)))
    return groups


def train(made: Student, groups: Sequence[Group], recipe: DistilRecipe, scratch: Path, seed: int) -> float:
    """Train the student in place and return its mean loss; resumes from the newest checkpoint in `scratch`."""
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        per_device_train_batch_size=recipe.queries_per_batch,
        bf16=recipe.bf16,
        remove_unused_columns=False,
        save_steps=recipe.checkpoint_steps,
        save_total_limit=1,
        logging_steps=50,
        report_to=list(recipe.report_to) or "none",
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = MarginTrainer(
        model=made.model,
        args=arguments,
        train_dataset=list(groups),
        data_collator=GroupCollator(made),
        margin=recipe.margin,
    )
    resume = any(scratch.glob("checkpoint-*")) or None
    return float(trainer.train(resume_from_checkpoint=resume).training_loss)


def run(context: Context) -> Metrics:
    """Write the student folder."""
    recipe = context.recipe.distil
    torch.manual_seed(context.seed)
    labels = context.inputs("label" if context.recipe.blend is None else "blend")
    shards = sorted((labels / "shards").glob("*.parquet"))
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    groups = groups_of(rows, recipe.group, context.seed)
    texts = (f"{row['query']} {product_line(row)}" for row in rows)
    model, tokenizer = student.build(recipe, context.weights(recipe.model), texts)
    contract = student.text_contract(context.recipe.text, tokenizer)
    encoder = PairEncoder(tokenizer.backend_tokenizer.to_str().encode(), contract)
    made = Student(model, encoder, contract)
    loss = train(made, groups, recipe, context.scratch, context.seed)
    student.save(model, tokenizer, contract, context.out)
    return {"pairs": len(rows), "groups": len(groups), "train_loss": round(loss, 5)}
