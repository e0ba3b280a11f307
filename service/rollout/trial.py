"""PURE. Who is answered by a candidate, how far two models agree on a list, and when a canary has to go.

Knows scores, shares and counts; does not know time, threads, texts' meaning or what a model is.
Invariant: one query always goes the same way, at any larger share too; what is remembered has a bound.
"""

import math
from collections import deque
from dataclasses import astuple, dataclass, field
from hashlib import blake2b
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AbortReason = Literal["failing", "slow", "disagreeing"]
"""Why a canary is taken out: it leaves documents unscored, takes too long, or ranks otherwise."""

TOP: Final = 10
WINDOW: Final = 500  # lists, and answers of each model, that count
MIN_LISTS: Final = 50  # below so many nothing is said about speed and order
MIN_DOCUMENTS: Final = 200  # below so many nothing is said about failures
MARGIN: Final = 0.01  # share of failed documents by which a canary may exceed the stable model


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two models agree on one list, or on several, as a mean."""

    overlap_at_10: float
    kendall_tau: float
    score_difference: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What a canary is held to: mean agreement with the stable model, and its time over the stable model's."""

    least_overlap: float
    least_tau: float
    most_slowdown: float


def is_sampled(key: str, share: float, salt: str = "") -> bool:
    """Return whether a key is among a share of all keys; shares under different salts are independent.

    >>> is_sampled("red shoes", 1.0), is_sampled("red shoes", 0.0)
    (True, False)
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.encode()).digest()
    return int.from_bytes(digest) < share * 2.0**64


def overlap_at(first: Floats, second: Floats, top: int = TOP) -> float:
    """Share of the best `top` by scores [n] that are among the best by others; a shorter list has a shorter top.

        |A_k & B_k| / k, k = min(top, n)

    Ties are in the order of the list, as in an answer.

    >>> overlap_at(np.array([0.9, 0.8, 0.1, 0.2]), np.array([0.9, 0.1, 0.8, 0.2]), top=2)
    0.5
    """
    count = min(top, len(first))
    best, others = (set(np.argsort(-scores, kind="stable")[:count].tolist()) for scores in (first, second))
    return len(best & others) / count


def kendall_tau(first: Floats, second: Floats) -> float:
    """Kendall's tau-b of two lists of scores [n], n >= 2, in [-1, 1], where ties count for neither side.

        tau_b = sum_ij a_ij b_ij / sqrt(sum_ij a_ij^2 sum_ij b_ij^2), a_ij = sign(x_i - x_j), b_ij = sign(y_i - y_j)

    That is (concordant - discordant) / sqrt((n0 - ties_x) (n0 - ties_y)) with n0 = n (n - 1) / 2 pairs (Kendall,
    "The treatment of ties in ranking problems", 1945). It is undefined where one list is all ties: such a list says
    nothing about the order, which is 0 here; two such lists agree, which is 1.

    Three pairs, of which two are in the same order and one is not: 1/3. Six pairs, one of them a tie on one side:
    5 / sqrt(5 * 6).

    >>> round(kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 4)
    0.3333
    >>> round(kendall_tau(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])), 4)
    0.9129
    """
    a, b = (np.sign(np.subtract.outer(scores, scores)) for scores in (first, second))
    untied_a, untied_b = float((a * a).sum()), float((b * b).sum())
    if not untied_a or not untied_b:
        return float(untied_a == untied_b)
    return float((a * b).sum()) / math.sqrt(untied_a * untied_b)


def compare_scores(first: Floats, second: Floats) -> Agreement | None:
    """Compare two models by their scores [n] of one list, NaN where there is none; None if fewer than two are common.

    >>> compare_scores(np.array([0.5, 0.25, np.nan]), np.array([0.75, 0.25, 0.9]))
    Agreement(overlap_at_10=1.0, kendall_tau=1.0, score_difference=0.125)
    """
    common = np.isfinite(first) & np.isfinite(second)
    if common.sum() < 2:
        return None
    first, second = first[common], second[common]
    return Agreement(
        overlap_at_10=overlap_at(first, second),
        kendall_tau=kendall_tau(first, second),
        score_difference=float(np.abs(first - second).mean()),
    )


@dataclass(slots=True)
class AnswerWindow:
    """The last answers of one model: how many documents each had, and on how many the model failed."""

    _answers: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, documents: int, failed: int) -> None:
        """Count an answer."""
        self._answers.append((documents, failed))

    @property
    def answers(self) -> int:
        """How many answers count."""
        return len(self._answers)

    @property
    def documents(self) -> int:
        """How many documents they had."""
        return sum(documents for documents, _ in self._answers)

    @property
    def failing(self) -> float:
        """Share of the documents on which the model failed."""
        return sum(failed for _, failed in self._answers) / max(1, self.documents)


@dataclass(slots=True)
class Trial:
    """How a candidate does beside the stable model: what each answered, and the lists that both ranked."""

    candidate: AnswerWindow = field(default_factory=AnswerWindow)
    stable: AnswerWindow = field(default_factory=AnswerWindow)
    _lists: deque[Agreement] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def compared(self, agreement: Agreement) -> None:
        """Take in a list that both ranked."""
        self._lists.append(agreement)

    @property
    def lists(self) -> int:
        """How many lists count."""
        return len(self._lists)

    @property
    def agreement(self) -> Agreement | None:
        """Mean over the lists that count, None before the first."""
        if not self._lists:
            return None
        means = np.mean([astuple(each) for each in self._lists], axis=0)
        return Agreement(*means.tolist())


def find_abort_reason(trial: Trial, slowdown: float, limits: Limits) -> AbortReason | None:
    """Say why a canary has to go, the gravest reason first, or None; `slowdown` is its time over the stable model's."""
    canary = trial.candidate
    if canary.documents >= MIN_DOCUMENTS and canary.failing > trial.stable.failing + MARGIN:
        return "failing"
    if canary.answers >= MIN_LISTS and slowdown > limits.most_slowdown:
        return "slow"
    mean = trial.agreement
    if mean is not None and trial.lists >= MIN_LISTS:
        agrees = mean.kendall_tau >= limits.least_tau and mean.overlap_at_10 >= limits.least_overlap
        return None if agrees else "disagreeing"
    return None
