"""One logit of several classes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from training.export.classes import ExpectedGain  # noqa: E402

GAINS = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5).filter(
    lambda gains: max(gains) > 0 and min(gains) < 1
)


@given(GAINS, st.integers(0, 99))
def test_its_sigmoid_is_the_expected_gain(gains: list[float], seed: int) -> None:
    """Whatever classes are worth, the sigmoid of the logit is the sum of their shares times their gains."""
    logits = torch.randn(7, len(gains), generator=torch.Generator().manual_seed(seed))
    expected = logits.double().softmax(1) @ torch.tensor(gains, dtype=torch.float64)

    assert ExpectedGain(gains)(logits).double().sigmoid().numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_sure_classes_do_not_overflow() -> None:
    """Logits that are a thousand apart give a logit that is finite, and in order."""
    found = ExpectedGain([0, 0.5, 1])(torch.tensor([[1000.0, 0, 0], [0, 0, 0], [0, 0, 1000.0]]))

    assert np.isfinite(found.numpy()).all()
    assert found[0] < found[1] < found[2]


def test_two_classes_are_one_output_of_the_head() -> None:
    """Where one class gains all and the other nothing, the head itself can give their difference."""
    head, rows = torch.nn.Linear(4, 2), torch.randn(3, 4)
    relevance = ExpectedGain([0, 1])

    assert relevance.is_linear
    assert torch.allclose(relevance.folded(head)(rows)[:, 0], relevance(head(rows)), atol=1e-6)
    assert not ExpectedGain([0, 0.5]).is_linear


@pytest.mark.parametrize("gains", [[0, 0], [1, 1], [0, 2], [-1, 1], [float("nan"), 1]])
def test_gains_that_rank_nothing(gains: list[float]) -> None:
    """Gains outside [0, 1], and those that leave nothing to gain or to lose, are refused."""
    with pytest.raises(ValueError, match="gains"):
        ExpectedGain(gains)
