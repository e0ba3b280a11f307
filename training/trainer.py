"""Train a model of one logit under a loss of our own with Hugging Face's Trainer.

Knows the Trainer's arguments and checkpoints; does not know teachers, students or texts.
Invariant: a run that was killed and started again in the same scratch folder goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

Loss = Callable[..., Tensor]


class Schedule(Protocol):
    """The numbers that every training recipe has."""

    @property
    def epochs(self) -> float:
        """Passes over the items."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of AdamW."""

    @property
    def warmup(self) -> float:
        """Share of the steps over which the rate rises."""

    @property
    def weight_decay(self) -> float:
        """AdamW's weight decay."""

    @property
    def bf16(self) -> bool:
        """Whether the forward pass runs under bfloat16 autocast."""

    @property
    def report_to(self) -> tuple[str, ...]:
        """Experiment trackers of the Trainer."""


def chunked_logits(model: Any, inputs: dict[str, Tensor], chunk: int) -> Tensor:
    """Return logits [n] of a right-padded batch [n, longest], computed `chunk` rows at a time.

    Rows are sorted by length first and each chunk is cut to its own longest, so that little padding is computed.
    """
    lengths = inputs["attention_mask"].sum(dim=1)
    order = torch.argsort(lengths)
    parts = []
    for rows in order.split(chunk):
        width = int(lengths[rows].max())
        parts.append(model(**{name: values[rows, :width] for name, values in inputs.items()}).logits[:, 0])
    return torch.cat(parts)[torch.argsort(order)]


class _LossTrainer(Trainer):
    """Calls `loss(logits, **targets)`, the targets being the batch entries of those names."""

    def __init__(
        self, *arguments: Any, loss: Loss, targets: Sequence[str], chunk: int, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.loss, self.targets, self.chunk = loss, targets, chunk
        self.model_accepts_loss_kwargs = False  # else the loss is not divided under gradient accumulation

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the Trainer's signature
        **_: Any,
    ) -> Any:
        """Return the loss of a batch; logits are handed over as float32 [pairs]."""
        targets = {name: inputs.pop(name) for name in self.targets}
        logits = chunked_logits(model, inputs, self.chunk)
        loss = self.loss(logits.float(), **targets)
        return (loss, {"logits": logits}) if return_outputs else loss


def fit(
    model: Any,
    items: Sequence[Any],
    collator: Callable[[list[Any]], dict[str, Tensor]],
    loss: Loss,
    *,
    targets: Sequence[str],
    schedule: Schedule,
    batch_items: int,
    scratch: Path,
    seed: int,
    chunk: int,
    **options: Any,
) -> float:
    """Train `model` in place and return its mean loss; `options` go to TrainingArguments as they are.

    A batch is `batch_items` items of `items`; its rows are computed `chunk` at a time.
    """
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=schedule.epochs,
        learning_rate=schedule.learning_rate,
        warmup_steps=schedule.warmup,
        weight_decay=schedule.weight_decay,
        bf16=schedule.bf16,
        report_to=list(schedule.report_to) or "none",
        per_device_train_batch_size=batch_items,
        remove_unused_columns=False,
        save_total_limit=1,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        **options,
    )
    trainer = _LossTrainer(
        model=model,
        args=arguments,
        train_dataset=list(items),
        data_collator=collator,
        loss=loss,
        targets=targets,
        chunk=chunk,
    )
    resume = any(scratch.glob("checkpoint-*")) or None
    return float(trainer.train(resume_from_checkpoint=resume).training_loss)
