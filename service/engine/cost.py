"""PURE. Predicts how long the engine takes for a run, from the runs it has made, and how late requests are beside it.

Knows tokens, rows and seconds; does not know time, threads or texts.
Invariant: a prediction of runs is finite and not negative, and grows neither with fewer tokens nor with fewer rows.
"""

import itertools
import math
from typing import Final

import numpy as np

HALF_LIFE_RUNS: Final = 100
"""After so many runs an old one counts half: a second or two under load, longer when idle."""

EARLY_REFIT_RUNS: Final = 8
REFIT_RUNS: Final = 32  # a fit takes as long as writing an answer
TRUSTED_RUNS: Final = 32
OUTLIER: Final = 4.0
"""Once trusted, a run of more than so many times its prediction, as when the machine stood still, counts as so many."""

FIRST_GUESS_S: Final = (2e-5, 1e-5, 3e-4)
"""Per token, row and run, before any run was seen."""

_FADE: Final = 1 / 16
_MIN_S: Final = 1e-6
_MAX_S: Final = 3_600.0
_DECAY: Final = 0.5 ** (1 / HALF_LIFE_RUNS)
_SUBSETS: Final = [
    list(chosen) for size in (3, 2, 1) for chosen in itertools.combinations(range(3), size)
]  # which of the three costs are above zero


class CostModel:
    """seconds = per_token * tokens + per_row * rows + per_run, fitted on line by weighted least squares.

    A run is weighed by the inverse of what the first guess says of its shape, so that short runs are predicted as well
    as long ones. Of the fits with no negative cost the best is taken.
    """

    __slots__ = ("_costs", "_gram", "_moment", "_runs", "_square")

    def __init__(self) -> None:
        self._costs = FIRST_GUESS_S
        self._runs = 0
        guess = np.array(FIRST_GUESS_S)
        prior = 1e-3 / guess**2  # a weak belief in the first guess, soon forgotten
        # sums over runs of the products of their features; of features and seconds; of seconds
        self._gram = np.diag(prior)
        self._moment = prior * guess
        self._square = float(self._moment @ guess)

    def seconds(self, tokens: int, rows: int, runs: int = 1) -> float:
        """Predict what `runs` runs of together `rows` rows and `tokens` tokens, padding included, take."""
        per_token, per_row, per_run = self._costs
        return per_token * tokens + per_row * rows + per_run * runs

    def observe(self, tokens: int, rows: int, seconds: float) -> None:
        """Learn from one run."""
        if not math.isfinite(seconds):
            return
        self._runs += 1
        if self._runs > TRUSTED_RUNS:
            seconds = min(seconds, OUTLIER * self.seconds(tokens, rows))
        guess = _guess(tokens, rows)
        features = np.array([tokens, rows, 1.0]) / guess
        target = min(max(seconds, _MIN_S), _MAX_S) / guess
        self._gram = _DECAY * self._gram + np.outer(features, features)
        self._moment = _DECAY * self._moment + features * target
        self._square = _DECAY * self._square + target * target
        if self._runs % (REFIT_RUNS if self._runs > TRUSTED_RUNS else EARLY_REFIT_RUNS) == 0:
            self._fit()

    def _fit(self) -> None:
        gram, moment = self._gram, self._moment
        best = math.inf
        for chosen in _SUBSETS:
            part = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], moment[chosen])[0]
            if (part < 0).any():
                continue
            costs = np.zeros(3)
            costs[chosen] = part
            error = float(costs @ gram @ costs - 2 * costs @ moment + self._square)
            if error < best and costs.any():
                best = error
                self._costs = (float(costs[0]), float(costs[1]), float(costs[2]))


class LatenessEstimate:
    """How much later requests are done than was predicted of them: by a factor, and give or take some seconds.

    The factor is the sum of what was over the sum of what was predicted, and the spread the mean absolute error, both
    with older ones fading, as TCP estimates its retransmission time (RFC 6298).
    """

    __slots__ = ("_actual_s", "_predicted_s", "_spread_s")

    def __init__(self) -> None:
        self._actual_s = self._predicted_s = 1.0
        self._spread_s = 0.0

    def observe(self, predicted_s: float, actual_s: float) -> None:
        """Learn from a request that was done, or that was not yet done, `actual_s` after it came."""
        error_s = abs(actual_s - self.expected_s(predicted_s))
        self._spread_s += _FADE * (error_s - self._spread_s)
        self._actual_s += _FADE * (actual_s - self._actual_s)
        self._predicted_s += _FADE * (max(predicted_s, _MIN_S) - self._predicted_s)

    def expected_s(self, predicted_s: float, spreads: float = 0.0) -> float:
        """Return when a request of which `predicted_s` is predicted is done, and so many spreads later."""
        factor = max(1.0, self._actual_s / self._predicted_s)
        return factor * predicted_s + spreads * self._spread_s


def _guess(tokens: int, rows: int) -> float:
    per_token, per_row, per_run = FIRST_GUESS_S
    return per_token * tokens + per_row * rows + per_run
