"""Tests of service/lifecycle.py; its server is tested with real signals in test_main.py."""

from service.lifecycle import Lifecycle, State


def test_a_life_goes_forward_only() -> None:
    """A service starts, is ready, drains; once draining it is never ready again."""
    lifecycle = Lifecycle()
    states = [lifecycle.state]
    for step in (lifecycle.started, lifecycle.drain, lifecycle.started):
        step()
        states.append(lifecycle.state)

    assert [State.STARTING, State.READY, State.DRAINING, State.DRAINING] == states
