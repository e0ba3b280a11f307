"""The losses: soft-target cross-entropy for teachers; margin-MSE and its alternatives for students.

Knows tensors; does not know models or data.
Invariant: masked entries add nothing to a value or to a gradient.
"""

from __future__ import annotations

import torch
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


def pointwise_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of scores, product by product; unlike margins it fixes the level of a score.

    Shapes: student, teacher [queries, products]; mask [queries, products], true where there is a product.

    >>> s, t = torch.tensor([[2.0, 1.0, 9.0]]), torch.tensor([[1.0, 3.0, 0.0]])
    >>> pointwise_mse(s, t, torch.tensor([[True, True, False]])).item()
    2.5
    """
    real = mask.to(student.dtype)
    return ((student - teacher).square() * real).sum() / real.sum()


def pointwise_bce(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of student logits against the teacher's probabilities sigmoid(teacher).

    Shapes: student, teacher [queries, products]; mask [queries, products], true where there is a product.

    >>> zero = torch.zeros(1, 2)
    >>> round(pointwise_bce(zero, zero, torch.tensor([[True, False]])).item(), 4)
    0.6931
    """
    each = functional.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none")
    real = mask.to(student.dtype)
    return (each * real).sum() / real.sum()


def listwise_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the softmax over a query's products, student from teacher.

    Averaged over the queries. Shapes as in `margin_mse`; a shift of all scores of a query changes nothing.

    >>> s, t = torch.tensor([[2.0, 1.0, 9.0]]), torch.tensor([[7.0, 6.0, 0.0]])
    >>> abs(round(listwise_kl(s, t, torch.tensor([[True, True, False]])).item(), 6))
    0.0
    """
    lowest = torch.finfo(student.dtype).min
    ours = functional.log_softmax(student.masked_fill(~mask, lowest), dim=1)
    theirs = functional.log_softmax(teacher.masked_fill(~mask, lowest), dim=1)
    each = (theirs.exp() * (theirs - ours)).masked_fill(~mask, 0.0)
    return each.sum() / mask.any(dim=1).sum()


STUDENT_LOSSES = {
    "margin_mse": margin_mse,
    "pointwise_mse": pointwise_mse,
    "pointwise_bce": pointwise_bce,
    "listwise_kl": listwise_kl,
}
