"""PURE. Decides how many documents of a request may enter: all, the first that fit its budget, or none.

Knows predicted costs and tokens; does not know time, threads or what a document is.
Invariant: what a tenant holds stays within its share of the bound, unless it is one single request.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

CHARS_PER_TOKEN: Final = 3  # on the low side for English words, so that the prediction is on the high side


def predict_tokens(query_chars: int, document_chars: Iterable[int], max_length: int) -> list[int]:
    """Predict how many tokens each pair of a query has, before any is tokenized.

    >>> predict_tokens(30, [0, 60, 9_000], max_length=128)
    [13, 33, 128]
    """
    head = query_chars // CHARS_PER_TOKEN + CHARS_PER_TOKEN  # and [CLS], [SEP], [SEP]
    return [min(max_length, head + chars // CHARS_PER_TOKEN) for chars in document_chars]


def documents_that_fit(
    costs_s: Sequence[float], finish_s: Callable[[float], float], available_s: float
) -> int:
    """Return how many documents, from the first, are done in `available_s`.

    `costs_s` is what each costs; `finish_s(cost)` says when work of that cost would be done, and grows with it.

    >>> documents_that_fit([1.0, 1.0, 1.0], lambda cost: 0.5 + cost, available_s=2.6)
    2
    """
    sums = [0.0, *accumulate(costs_s)]
    if finish_s(sums[-1]) <= available_s:
        return len(costs_s)
    low, high = 0, len(costs_s) - 1
    while low < high:  # the first `low` fit, the first `high + 1` do not
        middle = (low + high + 1) // 2
        if finish_s(sums[middle]) <= available_s:
            low = middle
        else:
            high = middle - 1
    return low


class Admission:
    """Counts, for each tenant, the predicted tokens that were admitted and not yet released.

    Tokens bound the memory of what waits. While other tenants hold some, a tenant's share of the bound goes by its
    weight; one that is alone has all of it.
    """

    __slots__ = ("_bound_tokens", "_held", "_weights")

    def __init__(self, bound_tokens: int, weights: Mapping[str, float]) -> None:
        self._bound_tokens = bound_tokens
        self._weights = weights
        self._held = dict.fromkeys(weights, 0)

    @property
    def held_tokens(self) -> int:
        """Predicted tokens admitted and not yet released."""
        return sum(self._held.values())

    def is_full(self, tenant: str) -> bool:
        """Whether even the smallest request of a tenant would be refused."""
        return self._held[tenant] >= self._share(tenant)

    def admit(self, tenant: str, tokens: int) -> bool:
        """Take `tokens` in, or refuse; a request that comes alone is never too large."""
        if self._held[tenant] and self._held[tenant] + tokens > self._share(tenant):
            return False
        self._held[tenant] += tokens
        return True

    def release(self, tenant: str, tokens: int) -> None:
        """Give back what `admit` took."""
        assert tokens <= self._held[tenant], "released more than was admitted"
        self._held[tenant] -= tokens

    def _share(self, tenant: str) -> float:
        weights = self._weights
        present = sum(weights[name] for name, held in self._held.items() if held or name == tenant)
        return self._bound_tokens * weights[tenant] / present
