"""Train a model of one logit under a loss of our own with Hugging Face's Trainer.

Knows the Trainer's arguments and checkpoints; does not know teachers, students or texts.
Invariant: a run that was killed and started again in the same scratch folder goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from training.errors import StageError
from training.models.hub import one_line

Loss = Callable[..., Tensor]

MEASURE = "eval_measure"  # the Trainer's name for what training is stopped by


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
        # ties in torch's order, not in that of batching.py: a student would change in its last bits
        order = torch.argsort(lengths)
        parts = []
        for rows in order.split(self.rows):
            width = int(lengths[rows].max())
            parts.append(self.model(**{name: values[rows, :width] for name, values in inputs.items()}).logits)
        return {"logits": torch.cat(parts)[torch.argsort(order)]}


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Ends a training once `patience` measures in a row were no better than the best; one at each checkpoint."""

    measure: Callable[[], float]  # of the model as it is, in evaluation mode; the larger the better
    patience: int


class _AfterEpoch(TrainerCallback):
    """Calls a function with the number of each epoch that ends, from 1 on; training goes on if it returns True."""

    def __init__(self, call: Callable[[int], bool]) -> None:
        self.call = call

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the Trainer's signature
        control.should_training_stop |= not self.call(round(state.epoch))


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training came to: mean loss, steps taken, and the best measure if there was one to stop by."""

    loss: float
    steps: int
    best: float | None


class _LossTrainer(Trainer):
    """Calls `loss(logits, **targets)`, the targets being the batch entries of those names."""

    def __init__(
        self, *arguments: Any, loss: Loss, targets: Sequence[str], stop: EarlyStop | None, **options: Any
    ) -> None:
        if stop is not None:
            options["callbacks"] = [EarlyStoppingCallback(stop.patience)]
            options["eval_dataset"] = []  # asked for wherever there is a strategy; `evaluate` needs none
        super().__init__(*arguments, **options)
        self.loss, self.targets, self.stop = loss, targets, stop
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

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the measure that the training is stopped by."""
        assert self.stop is not None
        self.model.eval()
        found = {MEASURE: self.stop.measure()}
        self.model.train()
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


def fit(
    model: Any,
    items: Sequence[Any] | IterableDataset,
    collator: Callable[[list[Any]], dict[str, Tensor]],
    loss: Loss,
    *,
    targets: Sequence[str],
    schedule: Schedule,
    batch_items: int,
    scratch: Path,
    seed: int,
    stop: EarlyStop | None = None,
    after_epoch: Callable[[int], bool] | None = None,
    **options: Any,
) -> Fitted:
    """Train `model` in place; `options` go to TrainingArguments as they are.

    With `stop` the model ends as it was at its best measure. `after_epoch` is called with the number of each
    epoch that ends, before its checkpoint is written, and says whether to go on.
    """
    if stop is not None:
        options |= {
            "eval_strategy": "steps",
            "eval_steps": options["save_steps"],
            "load_best_model_at_end": True,
            "metric_for_best_model": MEASURE,
            "greater_is_better": True,
        }
    streamed = isinstance(items, IterableDataset)
    if (
        streamed
    ):  # every process reads for itself: batches differ in width, and cannot be dealt by one process
        options["accelerator_config"] = {"dispatch_batches": False, "split_batches": False}
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
    try:
        trainer = _LossTrainer(
            model=model,
            args=arguments,
            train_dataset=items if streamed else list(items),
            data_collator=collator,
            loss=loss,
            targets=targets,
            stop=stop,
        )
    except (
        ImportError,
        RuntimeError,
        ValueError,
    ) as error:  # a tracker unknown, not installed or not logged in
        if not schedule.report_to:
            raise
        raise StageError(f"report_to {', '.join(schedule.report_to)}: {one_line(error)}") from error
    if after_epoch is not None:
        trainer.add_callback(_AfterEpoch(after_epoch))
    resume = any(scratch.glob("checkpoint-*")) or None
    done = trainer.train(resume_from_checkpoint=resume)
    return Fitted(float(done.training_loss), done.global_step, trainer.state.best_metric)
