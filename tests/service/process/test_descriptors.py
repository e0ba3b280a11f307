"""Tests of service/process/descriptors.py; what becomes of the figure is tested in tests/service/http/test_room.py."""

import resource

import pytest

from service.process.descriptors import RESERVE, max_connections


@pytest.mark.parametrize("limit", [1, 500, 1_024, resource.RLIM_INFINITY])
def test_a_limit_leaves_room(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """The limit on files less what is open and the reserve, at least one; without a limit any number."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))  # noqa: ARG005  as the system's
    most = max_connections()

    if limit == resource.RLIM_INFINITY:
        assert most == float("inf")
    else:
        assert 1 <= most <= max(1, limit - RESERVE)
