"""The upper layers of a student, which alone are trained; what the lower ones make of a text is computed once.

Knows BERT's modules and token rows; does not know grades.
Invariant: with its weights as they came, the top gives the student's own logits, but for states rounded to 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.rows import Row
from training.models.batching import batches_by_length
from training.student.student import Student

BATCH = 64  # rows in one forward pass without gradients


@dataclass(frozen=True, slots=True)
class Output:
    """Logits [n, 1], under the name that Hugging Face's models give them."""

    logits: Tensor


class Top(nn.Module):
    """The last `layers` layers of a student with its pooler and head; the modules are the student's own."""

    def __init__(self, student: Student, layers: int) -> None:
        super().__init__()
        body = student.model.bert
        self.layers = nn.ModuleList(body.encoder.layer[-layers:])
        self.pooler, self.classifier = body.pooler, student.model.classifier

    def forward(self, states: Tensor, attention_mask: Tensor) -> Output:
        """Return the logits of texts whose tokens are in these states [n, longest, hidden] below the top."""
        seen = attention_mask[:, None, None, :].bool()
        for layer in self.layers:
            states = layer(states, seen)
        return Output(self.classifier(self.pooler(states)))

    @torch.inference_mode()
    def score(self, states: Sequence[Tensor]) -> NDArray[np.float32]:
        """Return the logits [n] of texts, each as the states of its tokens [length, hidden]."""
        out = np.empty(len(states), np.float32)
        for chosen in batches_by_length([len(each) for each in states], BATCH):
            out[chosen] = self(**padded([states[place] for place in chosen])).logits[:, 0].numpy()
        return out

    @contextmanager
    def between(self, base: Mapping[str, Tensor], share: float) -> Iterator[None]:
        """Have weights that are this share of the way from the base to its own, for as long as it lasts.

        Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
        """
        own, training = self.copied(), self.training
        self.load_state_dict({name: base[name].lerp(value, share) for name, value in own.items()})
        self.eval()
        try:
            yield
        finally:
            self.load_state_dict(own)
            self.train(training)

    def copied(self) -> dict[str, Tensor]:
        """Return a copy of the weights."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}


def padded(states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return `states` [n, longest, hidden] in float32 and `attention_mask` [n, longest]."""
    lengths = torch.tensor([len(each) for each in states])
    block = nn.utils.rnn.pad_sequence([each.float() for each in states], batch_first=True)
    return {
        "states": block,
        "attention_mask": (torch.arange(block.shape[1]) < lengths[:, None]).long(),
    }


@torch.inference_mode()
def states_below(student: Student, rows: Sequence[Row], layers: int) -> list[Tensor]:
    """Return what the layers below the last `layers` make of each row: float16 [length, hidden]."""
    body = student.model.bert
    below = body.encoder.layer[: len(body.encoder.layer) - layers]
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for chosen in batches_by_length([len(row) for row in rows], BATCH):
        tensors = student.tensors([rows[place] for place in chosen])
        seen = tensors["attention_mask"][:, None, None, :].bool()
        states = body.embeddings(tensors["input_ids"], tensors["token_type_ids"])
        for layer in below:
            states = layer(states, seen)
        for place, each in zip(chosen, states, strict=True):
            found[place] = each[: len(rows[place])].half()
    return found
