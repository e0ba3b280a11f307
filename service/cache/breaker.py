"""PURE. Keeps away from what fails again and again, and tries it once in a while.

Knows outcomes and the time it is given; does not know a clock, or what fails.
Invariant: after `failures` in a row at most one attempt is allowed in each pause, until one succeeds.
"""

from typing import Final

FAILURES: Final = 3
PAUSE_S: Final = 2.0


class Breaker:
    """Allows attempts while they succeed.

    >>> breaker = Breaker(failures=1, pause_s=2.0)
    >>> breaker.fail(10.0), breaker.allow(11.0), breaker.allow(12.0), breaker.allow(12.0)
    (True, False, True, False)
    >>> breaker.succeed(), breaker.allow(12.0)
    (True, True)
    """

    def __init__(self, failures: int = FAILURES, pause_s: float = PAUSE_S) -> None:
        self._limit = failures
        self._pause_s = pause_s
        self._failures = 0
        self._next_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether attempts are kept away."""
        return self._failures >= self._limit

    def allow(self, now_s: float) -> bool:
        """Say whether to try; an attempt whose outcome is never reported delays the next one by one pause only."""
        if not self.is_open:
            return True
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._pause_s
        return True

    def succeed(self) -> bool:
        """Note a success; return whether attempts had been kept away."""
        was_open, self._failures = self.is_open, 0
        return was_open

    def fail(self, now_s: float) -> bool:
        """Note a failure; return whether attempts are kept away from now on, and had not been."""
        was_open = self.is_open
        self._failures += 1
        if self.is_open:
            self._next_s = now_s + self._pause_s
        return self.is_open and not was_open
