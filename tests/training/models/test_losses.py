"""The losses against sums written out."""

from collections.abc import Callable
from itertools import combinations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from training.models.losses import (  # noqa: E402
    STUDENT_LOSSES,
    listwise_kl,
    margin_mse,
    pointwise_bce,
    pointwise_mse,
    soft_target_bce,
)


def written_out(student: list[float], teacher: list[float]) -> float:
    """The all-pairs sum of the paper, term by term."""
    pairs = list(combinations(range(len(student)), 2))
    margins = [(student[i] - student[j]) - (teacher[i] - teacher[j]) for i, j in pairs]
    return sum(m * m for m in margins) / len(margins)


def test_closed_form_equals_the_sum_over_pairs() -> None:
    """Twice the unbiased variance of the error is the mean squared margin error, list lengths mixed."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(5, 8, generator=generator), torch.randn(5, 8, generator=generator)
    counts = [8, 5, 2, 1, 3]
    mask = torch.arange(8)[None] < torch.tensor(counts)[:, None]
    wanted = [
        written_out(student[q, :n].tolist(), teacher[q, :n].tolist()) for q, n in enumerate(counts) if n > 1
    ]

    assert margin_mse(student, teacher, mask).item() == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


@pytest.mark.parametrize("loss", STUDENT_LOSSES.values(), ids=STUDENT_LOSSES)
def test_masked_products_get_no_gradient(loss: Callable[..., torch.Tensor]) -> None:
    """What lies under the mask moves neither the value nor the gradient."""
    student, teacher = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    value = loss(student, teacher, mask)
    value.backward()

    other = torch.where(mask, teacher, torch.full((2, 4), 7.0))
    assert loss(student, other, mask).item() == pytest.approx(value.item())
    assert student.grad is not None
    assert torch.all(student.grad[~mask] == 0)
    assert torch.all(student.grad[mask] != 0)


def test_margins_ignore_a_shift_of_a_query() -> None:
    """Adding a constant to all scores of a query leaves the loss as it is."""
    student, teacher, mask = torch.randn(3, 6), torch.randn(3, 6), torch.ones(3, 6, dtype=torch.bool)
    shifted = student + torch.tensor([[5.0], [-2.0], [9.0]])

    assert margin_mse(shifted, teacher, mask).item() == pytest.approx(
        margin_mse(student, teacher, mask).item(), rel=1e-4
    )


@pytest.mark.parametrize("loss", STUDENT_LOSSES.values(), ids=STUDENT_LOSSES)
def test_the_teacher_itself_is_a_minimum(loss: Callable[..., torch.Tensor]) -> None:
    """At the teacher's scores no loss has a gradient, and a step to either side raises it."""
    teacher, mask = (
        torch.randn(3, 5),
        torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 2 + [False] * 3]),
    )
    student = teacher.clone().requires_grad_()
    here = loss(student, teacher, mask)
    here.backward()
    bump = torch.zeros_like(teacher)
    bump[:, 0] = 0.3

    assert student.grad is not None
    assert student.grad.abs().max() < 1e-5
    assert min(loss(teacher + bump, teacher, mask), loss(teacher - bump, teacher, mask)) > here


def test_pointwise_losses_are_the_means_over_products() -> None:
    """Each product counts alike, whichever query it belongs to."""
    student, teacher = torch.randn(2, 3), torch.randn(2, 3)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    bce = torch.nn.functional.binary_cross_entropy_with_logits(student[mask], teacher[mask].sigmoid())

    assert pointwise_mse(student, teacher, mask).item() == pytest.approx(
        (student[mask] - teacher[mask]).square().mean().item()
    )
    assert pointwise_bce(student, teacher, mask).item() == pytest.approx(bce.item())


def test_listwise_divergence_is_torchs() -> None:
    """The masked sum is the library's divergence of the products that are there, averaged over queries."""
    student, teacher = torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    wanted = [
        torch.nn.functional.kl_div(
            student[q, :n].log_softmax(0), teacher[q, :n].softmax(0), reduction="sum"
        ).item()
        for q, n in enumerate((4, 2))
    ]

    assert listwise_kl(student, teacher, mask).item() == pytest.approx(sum(wanted) / 2, abs=1e-6)


def test_soft_target_minimum_is_the_target() -> None:
    """The loss of one pair is smallest where the sigmoid of the logit is its target."""
    grid = torch.linspace(-4, 4, 801)
    losses = torch.stack([soft_target_bce(x[None], torch.tensor([0.5]), torch.ones(1)) for x in grid])

    assert grid[losses.argmin()].item() == pytest.approx(0.0, abs=1e-2)


def test_weights_scale_a_pair() -> None:
    """A pair of weight zero does not count."""
    logits, targets = torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0])
    alone = soft_target_bce(logits[:1], targets[:1], torch.ones(1))

    assert torch.equal(soft_target_bce(logits, targets, torch.tensor([1.0, 0.0])), alone)
