"""PURE. Decides whether a request may enter, for all its documents together.

Knows tokens; does not know time, threads or what a document is.
Invariant: what was admitted and not released stays within the bound, unless it is one single request.
"""

from collections.abc import Iterable

CHARS_PER_TOKEN = 3  # on the low side for English words, so that the prediction is on the high side


def predict_tokens(query_chars: int, document_chars: Iterable[int], max_length: int) -> int:
    """Predict how many tokens the pairs of a request have, before any is tokenized.

    >>> predict_tokens(30, [0, 60, 9_000], max_length=128)
    174
    """
    head = query_chars // CHARS_PER_TOKEN + CHARS_PER_TOKEN  # and [CLS], [SEP], [SEP]
    return sum(min(max_length, head + chars // CHARS_PER_TOKEN) for chars in document_chars)


class Admission:
    """Counts the predicted tokens that were admitted and not yet released."""

    __slots__ = ("_bound_tokens", "_held_tokens")

    def __init__(self, bound_tokens: int) -> None:
        self._bound_tokens = bound_tokens
        self._held_tokens = 0

    @property
    def held_tokens(self) -> int:
        """Predicted tokens admitted and not yet released."""
        return self._held_tokens

    @property
    def full(self) -> bool:
        """Whether even the smallest request would be refused."""
        return self._held_tokens >= self._bound_tokens

    def admit(self, tokens: int) -> bool:
        """Take `tokens` in, or refuse; a request that comes alone is never too large."""
        if self._held_tokens and self._held_tokens + tokens > self._bound_tokens:
            return False
        self._held_tokens += tokens
        return True

    def release(self, tokens: int) -> None:
        """Give back what `admit` took."""
        assert tokens <= self._held_tokens, "released more than was admitted"
        self._held_tokens -= tokens
