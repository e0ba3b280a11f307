"""Trains a model on a shop's graded lists while it stays near what it said before.

Knows states of texts, gains and the model's earlier scores; does not know texts, files or what is held out.
Invariant: a run that was killed and started again in the same scratch folder goes on from its last epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.losses import listwise_kl, margin_mse
from training.models.trainer import Chunked, fit
from training.tune.top import Top, padded

Floats = NDArray[np.float32]

CHUNK = 32  # pairs in one forward pass


@dataclass(frozen=True, slots=True)
class Lesson:
    """One query's products: states below the top [n], gains [n] (nan where nobody graded) and base logits [n]."""

    states: Sequence[Tensor]
    gains: Floats
    logits: Floats


@dataclass(frozen=True, slots=True)
class Settings:
    """How a shop's lists are learnt; the defaults were chosen on validation lists of four data sets."""

    epochs: int = 3
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    bf16: bool = False
    report_to: tuple[str, ...] = ()
    queries_per_batch: int = 4
    sharpness: float = 4.0  # of the order that grades ask for: softmax over sharpness * gain
    closeness: float = 0.5  # weight of staying near the base model's margins


def learn(
    top: Top,
    lessons: Sequence[Lesson],
    settings: Settings,
    *,
    scratch: Path,
    seed: int,
    after_epoch: Callable[[int], bool],
) -> None:
    """Train the top in place; `after_epoch` gets the number of each epoch that ends, from 1 on, and says whether to go on."""
    spread = float(np.mean([lesson.logits.std() for lesson in lessons])) or 1.0
    fit(
        Chunked(top, CHUNK),
        lessons,
        _batch,
        partial(_loss, spread=spread, settings=settings),
        targets=("gains", "base", "mask"),
        schedule=settings,
        batch_items=settings.queries_per_batch,
        scratch=scratch,
        seed=seed,
        after_epoch=after_epoch,
        save_strategy="epoch",
        logging_strategy="no",
    )
    top.eval()


def _batch(lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """Return input tensors of all pairs, and `gains`, `base` and `mask`, each [queries, longest list]."""
    width = max(len(lesson.states) for lesson in lessons)
    gains = torch.full((len(lessons), width), torch.nan)
    base = torch.zeros(len(lessons), width)
    mask = torch.zeros(len(lessons), width, dtype=torch.bool)
    for place, lesson in enumerate(lessons):
        size = len(lesson.states)
        gains[place, :size] = torch.from_numpy(lesson.gains)
        base[place, :size] = torch.from_numpy(lesson.logits)
        mask[place, :size] = True
    states = [each for lesson in lessons for each in lesson.states]
    return padded(states) | {"gains": gains, "base": base, "mask": mask}


def _loss(
    logits: Tensor, *, gains: Tensor, base: Tensor, mask: Tensor, spread: float, settings: Settings
) -> Tensor:
    """Return the distance to the order of the grades, and to the base model's margins.

    Shapes: logits [pairs], in the order of the true entries of mask; the others [queries, products]. Scores count in
    units of the base model's own spread within lists, so that one setting fits models of any scale.
    """
    scores = torch.zeros_like(base).masked_scatter(mask, logits) / spread
    graded = ~gains.isnan()
    wanted = settings.sharpness * gains.nan_to_num()
    near = margin_mse(scores, base / spread, mask)
    return listwise_kl(scores, wanted, graded) + settings.closeness * near
