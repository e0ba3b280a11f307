"""The two sides of the loss: the order of the grades, and the scores that were there before."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from training.tune.learn import Settings, _batch, _loss  # noqa: E402  after the question for torch

NAN = float("nan")


def loss(logits: list[float], gains: list[float], base: list[float], **settings: float) -> float:
    """Return the loss of one list with a spread of 1."""
    one = torch.tensor([gains]), torch.tensor([base]), torch.ones(1, len(gains), dtype=torch.bool)
    return float(
        _loss(
            torch.tensor(logits),
            gains=one[0],
            base=one[1],
            mask=one[2],
            spread=1.0,
            settings=Settings(**settings),
        )
    )


def test_the_order_of_the_grades_costs_less() -> None:
    """Logits in the order of the grades have a smaller loss than in the opposite one."""
    right = loss([2.0, 0.0], [1.0, 0.0], [0.0, 0.0], closeness=0.0)
    wrong = loss([0.0, 2.0], [1.0, 0.0], [0.0, 0.0], closeness=0.0)

    assert right < wrong


def test_products_without_a_grade_stay() -> None:
    """Where nobody graded, only the distance from the old margins costs; a shift of all scores costs nothing."""
    graded = [1.0, 0.0]
    same = loss([1.0, 0.0, 3.0, -1.0], [*graded, NAN, NAN], [1.0, 0.0, 3.0, -1.0])
    shifted = loss([6.0, 5.0, 8.0, 4.0], [*graded, NAN, NAN], [1.0, 0.0, 3.0, -1.0])
    moved = loss([1.0, 0.0, 0.0, -1.0], [*graded, NAN, NAN], [1.0, 0.0, 3.0, -1.0])

    assert same == pytest.approx(shifted, abs=1e-5)
    assert moved > same + 0.1


def test_padding_is_no_product() -> None:
    """A short list beside a long one has no grade and no state where the long one has products."""
    from training.tune.learn import Lesson  # noqa: PLC0415 - torch is there

    short = Lesson([torch.ones(2, 4)], torch.tensor([1.0]).numpy(), torch.tensor([0.5]).numpy())
    long = Lesson([torch.ones(3, 4)] * 2, torch.tensor([1.0, NAN]).numpy(), torch.tensor([0.5, 0.1]).numpy())

    batch = _batch([short, long])

    assert batch["states"].shape == (3, 3, 4)
    assert batch["mask"].tolist() == [[True, False], [True, True]]
    assert batch["gains"].isnan().tolist() == [[False, True], [False, True]]
