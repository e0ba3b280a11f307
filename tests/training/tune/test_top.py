"""The upper layers on states that the lower ones left: the student's own logits, and weights on the way to new ones."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import torch

from training.data.golden import golden_pairs
from training.student.student import Student
from training.tune.base import open_bundle, student_of
from training.tune.top import Top, states_below


@pytest.fixture(scope="module")
def student(tiny: Path) -> Student:
    """Give the small bundle's model; tests leave its weights as they were."""
    return student_of(open_bundle(tiny))


@pytest.mark.parametrize("layers", [1, 2])
def test_the_top_gives_the_students_logits(student: Student, layers: int) -> None:
    """Texts of every length, alone or padded, score as the whole student scores them."""
    rows = [student.encoder.encode(query, [product])[0] for query, product in golden_pairs()]
    top = Top(student, layers).eval()

    assert np.abs(top.score(states_below(student, rows, layers)) - student.score(rows)).max() < 2e-3


def test_a_share_of_the_way_lasts_as_long_as_it_is_asked_for(student: Student) -> None:
    """Half of the way from old weights to new ones is their mean; afterwards the new ones are there again."""
    top = Top(student, 1)
    base = top.copied()
    with torch.no_grad():
        top.classifier.bias.add_(1.0)

    with top.between(base, 0.5):
        halfway = top.classifier.bias.item()
    after = top.classifier.bias.item()
    top.load_state_dict(base)

    assert halfway == pytest.approx(base["classifier.bias"].item() + 0.5)
    assert after == pytest.approx(base["classifier.bias"].item() + 1.0)
