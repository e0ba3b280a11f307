"""The two losses: soft-target cross-entropy for teachers, all-pairs margin-MSE for students.

Knows tensors; does not know models or data.
Invariant: masked entries add nothing to a value or to a gradient.
"""

from __future__ import annotations

import torch  # noqa: F401 - the doctests use it
from torch import Tensor
from torch.nn import functional


def soft_target_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy against soft targets, weighted: arXiv 2505.07105.

    L = -sum_d w_d [y_d log t_d + (1 - y_d) log(1 - t_d)] / sum_d w_d, with t = sigmoid(logit).

    Shapes: logits, targets (in [0, 1]) and weights are all [n]; the result is a scalar.

    >>> logits = torch.tensor([0.0, 0.0])
    >>> round(soft_target_bce(logits, torch.tensor([1.0, 0.5]), torch.tensor([1.0, 3.0])).item(), 4)
    0.6931
    """
    each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (each * weights).sum() / weights.sum()


def margin_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of score margins over all product pairs of each query.

    L(q) = 2 / (n (n - 1)) sum_{i<j} ((s_i - s_j) - (t_i - t_j))^2 (arXiv 2505.07105), averaged over the queries
    with at least two products. With e = s - t this is 2 Var(e), the unbiased variance, so it costs O(n).

    Shapes: student, teacher [queries, products]; mask [queries, products], true where there is a product.

    Three products with e = (1, 0, -1): the squared margins are 1, 4 and 1, their mean is 2.

    >>> s, t = torch.tensor([[2.0, 1.0, 0.0, 9.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    >>> margin_mse(s, t, torch.tensor([[True, True, True, False]])).item()
    2.0
    """
    real = mask.to(student.dtype)
    count = real.sum(dim=1)
    error = (student - teacher) * real
    mean = error.sum(dim=1, keepdim=True) / count.clamp(min=1).unsqueeze(1)
    squares = ((error - mean) * real).square().sum(dim=1)
    usable = count >= 2
    each = 2.0 * squares / (count - 1).clamp(min=1)
    return (each * usable).sum() / usable.sum().clamp(min=1)
