"""One relevance logit of a model's classes, each of which is worth something.

Knows logits and gains; does not know names of classes, nor how a model computes them.
Invariant: the sigmoid of the logit is the expected gain of the classes' softmax, so it ranks as that does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ExpectedGain(nn.Module):
    """log(g / (1 - g)) [batch] of g = sum_k gain_k softmax(logits)_k, from logits [batch, classes].

    It is log sum_k gain_k exp(logit_k) - log sum_k (1 - gain_k) exp(logit_k), in which nothing overflows.

    >>> ExpectedGain([0, 0.5, 1])(torch.tensor([[0.0, 0.0, 0.0]])).tolist()  # half of what there is to gain
    [0.0]
    """

    def __init__(self, gains: Sequence[float]) -> None:
        """Take each class's gain in [0, 1]; ValueError unless there is something to gain and to lose."""
        super().__init__()
        worth = torch.tensor(gains, dtype=torch.float32)
        if not ((worth >= 0) & (worth <= 1)).all() or not (worth > 0).any() or not (worth < 1).any():
            raise ValueError("expected gains in [0, 1], one above 0 and one below 1 among them")
        self.classes = len(gains)
        self.up, self.down = (torch.nonzero(share)[:, 0] for share in (worth, 1 - worth))
        self.log_up, self.log_down = worth[self.up].log(), (1 - worth)[self.down].log()

    def forward(self, logits: Tensor) -> Tensor:
        """Return the logit of each row's expected gain."""
        above = torch.logsumexp(logits[:, self.up] + self.log_up, dim=1)
        return above - torch.logsumexp(logits[:, self.down] + self.log_down, dim=1)

    @property
    def is_linear(self) -> bool:
        """Whether one class alone gains and another alone loses: the logit is their difference."""
        return len(self.up) == len(self.down) == 1

    @torch.no_grad()
    def folded(self, head: nn.Linear) -> nn.Linear:
        """Return the head of one output that gives this logit, of one that gives the classes' and `is_linear`."""
        up, down = int(self.up[0]), int(self.down[0])
        made = nn.Linear(head.in_features, 1)
        made.weight.copy_(head.weight[up : up + 1] - head.weight[down : down + 1])
        made.bias.copy_(head.bias[up : up + 1] - head.bias[down : down + 1])
        return made
