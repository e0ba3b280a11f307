"""PURE. What a request may take: until when it waits, how urgent it is, for whom, and what to do if it fails.

Knows the settings' bounds and what a request asked for; does not know the clock, the queue or HTTP.
Invariant: any request has a finite deadline within the bounds, and a tenant and a priority of a closed set.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from service.errors import Reason, Refused
from service.settings import Settings

Choice = TypeVar("Choice", bound=str)
Priority = Literal["search", "autocomplete", "offline"]
OnFailure = Literal["degrade", "error"]
_ON_FAILURE: Final[tuple[OnFailure, ...]] = get_args(OnFailure)
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""Most urgent first: somebody waits for a search page, types on in a box, or does not wait at all."""

TERMS_HEADERS: Final = ("x-tenant", "x-budget-ms", "x-priority", "x-on-failure")
DEFAULT_TENANT: Final = "default"
"""The tenant of a request that names none that is known."""

MIN_BUDGET_S: Final = 0.001
RESPOND_S: Final = 0.003  # kept back for writing the answer, benchmarks/service/overload.py


@dataclass(frozen=True, slots=True)
class RequestedTerms:
    """What a request asks for; None leaves it to the headers and the settings."""

    budget_ms: float | None = None
    priority: Priority | None = None
    on_failure: OnFailure | None = None


NO_REQUESTED_TERMS: Final = RequestedTerms()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request gets; the deadline is in seconds of the monotonic clock."""

    deadline_s: float
    priority: Priority
    on_failure: OnFailure
    tenant: str

    @property
    def level(self) -> int:
        """Place of the priority, 0 for the most urgent."""
        return PRIORITIES.index(self.priority)


def to_priority(value: Priority | int | None) -> Priority | None:
    """Return a priority by its word, or by its place as other APIs count: 0 is the most urgent, and any beyond last.

    >>> to_priority(0), to_priority(1), to_priority(999)
    ('search', 'autocomplete', 'offline')
    """
    if isinstance(value, int):
        return PRIORITIES[min(max(value, 0), len(PRIORITIES) - 1)]
    return value


def tenant_of(headers: Mapping[str, str], key_name: str | None, limits: Settings) -> str:
    """Return whose a request is: that of its key, else of its header `x-tenant`, if the settings know it."""
    named = headers.get("x-tenant") if key_name is None else key_name
    return named if named in limits.tenant_weights else DEFAULT_TENANT


def resolve_terms(
    requested_terms: RequestedTerms,
    headers: Mapping[str, str],
    tenant: str,
    first_byte_s: float,
    limits: Settings,
) -> Terms:
    """Return the terms of a request that arrived at `first_byte_s`.

    The headers `x-budget-ms`, `x-priority` and `x-on-failure` are for dialects whose bodies have no place for them.
    Of two budgets the shorter one counts, of body and header otherwise the body; a budget is clamped to the bounds.
    Refused if a header is no number or no word of the closed set.
    """
    stated = [requested_terms.budget_ms, _number(headers.get("x-budget-ms"), "x-budget-ms")]
    budgets_ms = [budget for budget in stated if budget is not None]
    budget_s = min(budgets_ms, default=limits.default_budget_ms) / 1_000
    budget_s = min(max(budget_s, MIN_BUDGET_S), limits.max_budget_ms / 1_000)
    return Terms(
        deadline_s=first_byte_s + budget_s,
        priority=requested_terms.priority
        or _choice(headers.get("x-priority"), PRIORITIES, "x-priority")
        or "search",
        on_failure=requested_terms.on_failure
        or _choice(headers.get("x-on-failure"), _ON_FAILURE, "x-on-failure")
        or limits.on_failure,
        tenant=tenant,
    )


def _number(value: str | None, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Refused(Reason.INVALID_FIELD, (name,))
    return number


def _choice(value: str | None, choices: tuple[Choice, ...], name: str) -> Choice | None:
    if value is None:
        return None
    found = next((choice for choice in choices if choice == value), None)
    if found is None:
        raise Refused(Reason.INVALID_FIELD, (name,))
    return found
