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


class Chunked(torch.nn.Module):
    """Computes a right-padded batch some rows at a time, sorted by length, so that little padding is computed.

    It is a module, and not a loop around one, because data-parallel processes have to agree on the number of
    forward passes, and their batches need not have equally many chunks.
    """

    def __init__(self, model: Any, rows: int) -> None:
        super().__init__()
        self.model, self.rows = model, rows

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return logits [n, 1] for inputs [n, longest], in the order of the inputs."""
        lengths = inputs["attention_mask"].sum(dim=1)
        order = torch.argsort(lengths)
        parts = []
        for rows in order.split(self.rows):
            width = int(lengths[rows].max())
            parts.append(self.model(**{name: values[rows, :width] for name, values in inputs.items()}).logits)
        return {"logits": torch.cat(parts)[torch.argsort(order)]}


class _LossTrainer(Trainer):
    """Calls `loss(logits, **targets)`, the targets being the batch entries of those names."""

    def __init__(self, *arguments: Any, loss: Loss, targets: Sequence[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.loss, self.targets = loss, targets
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
        outputs = model(**inputs)
        loss = self.loss(outputs["logits"][:, 0].float(), **targets)
        return (loss, outputs) if return_outputs else loss


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
    **options: Any,
) -> float:
    """Train `model` in place and return its mean loss; `options` go to TrainingArguments as they are."""
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
    )
    resume = any(scratch.glob("checkpoint-*")) or None
    return float(trainer.train(resume_from_checkpoint=resume).training_loss)
