"""Tests of service/domain/budget.py."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.budget import (
    DEFAULT_TENANT,
    MIN_BUDGET_S,
    NO_REQUESTED_TERMS,
    PRIORITIES,
    OnFailure,
    RequestedTerms,
    resolve_terms,
    tenant_of,
)
from service.errors import Reason, Refused
from service.settings import Settings

SETTINGS = Settings(default_budget_ms=200, max_budget_ms=1_000, tenants="web=4,feed=1")


def _budget_s(requested_terms: RequestedTerms = NO_REQUESTED_TERMS, **headers: str) -> float:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return resolve_terms(requested_terms, named, DEFAULT_TENANT, 100.0, SETTINGS).deadline_s - 100.0


def test_without_a_wish_the_settings_count() -> None:
    """A request that says nothing gets the default budget, the first level, and what the settings do on failure."""
    terms = resolve_terms(NO_REQUESTED_TERMS, {}, DEFAULT_TENANT, 100.0, SETTINGS)

    assert (100.2, "search", 0, "degrade", DEFAULT_TENANT) == (
        terms.deadline_s,
        terms.priority,
        terms.level,
        terms.on_failure,
        terms.tenant,
    )


def test_the_shorter_budget_counts() -> None:
    """Body and header may both have one."""
    assert math.isclose(0.05, _budget_s(RequestedTerms(budget_ms=50), x_budget_ms="70"))
    assert math.isclose(0.07, _budget_s(RequestedTerms(budget_ms=90), x_budget_ms="70"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_budget_is_clamped(budget_ms: float) -> None:
    """0, a negative one and one beyond all bounds give a deadline within the bounds."""
    for found in (_budget_s(RequestedTerms(budget_ms=budget_ms)), _budget_s(x_budget_ms=repr(budget_ms))):
        assert MIN_BUDGET_S <= found + 1e-9 <= 1.0 + 2e-9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("x-budget-ms", value) for value in ("", "soon", "nan", "inf", "-inf", "1e999", "5 ms", "0x10")),
        ("x-priority", "urgent"),
        ("x-priority", ""),
        ("x-on-failure", "panic"),
    ],
)
def test_a_header_without_sense_is_refused(name: str, value: str) -> None:
    """What is no number, or no word of the closed set, is refused by the header's name."""
    with pytest.raises(Refused) as refused:
        resolve_terms(NO_REQUESTED_TERMS, {name: value}, DEFAULT_TENANT, 0.0, SETTINGS)

    assert (Reason.INVALID_FIELD, (name,)) == (refused.value.reason, refused.value.loc)


@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("on_failure", get_args(OnFailure))
def test_a_wish_of_the_body_outweighs_the_header(priority: str, on_failure: str) -> None:
    """Each word is understood in both places; the body's counts."""
    headers = {"x-priority": priority, "x-on-failure": on_failure}
    by_header = resolve_terms(NO_REQUESTED_TERMS, headers, DEFAULT_TENANT, 0.0, SETTINGS)
    by_body = resolve_terms(
        RequestedTerms(priority="search", on_failure="degrade"), headers, DEFAULT_TENANT, 0.0, SETTINGS
    )

    assert (priority, on_failure) == (by_header.priority, by_header.on_failure)
    assert ("search", "degrade") == (by_body.priority, by_body.on_failure)


@pytest.mark.parametrize(
    ("header", "key", "tenant"),
    [
        ("web", None, "web"),
        ("nobody", None, DEFAULT_TENANT),
        (None, None, DEFAULT_TENANT),
        ("web", "feed", "feed"),
        ("web", "nobody", DEFAULT_TENANT),
    ],
)
def test_a_tenant_is_of_a_closed_set(header: str | None, key: str | None, tenant: str) -> None:
    """Whom the settings do not know is nobody in particular, and a key outweighs what the header claims."""
    headers = {} if header is None else {"x-tenant": header}

    assert tenant == tenant_of(headers, key, SETTINGS)
