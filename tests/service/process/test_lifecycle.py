"""Tests of service/process/lifecycle.py; its server is tested with real signals in test_main.py."""

from service.process.lifecycle import STUCK, Lifecycle, State


def test_a_life_goes_forward_only() -> None:
    """A service starts, is ready, drains; once draining it is never ready again."""
    lifecycle = Lifecycle()
    states = [lifecycle.state]
    for step in (lifecycle.started, lifecycle.drain, lifecycle.started):
        step()
        states.append(lifecycle.state)

    assert [State.STARTING, State.READY, State.DRAINING, State.DRAINING] == states


def test_the_first_reason_to_leave_gives_the_exit_code() -> None:
    """A service that leaves for a fault keeps that exit code when it is told to stop besides."""
    lifecycle = Lifecycle()
    lifecycle.drain(STUCK)
    lifecycle.drain()

    assert lifecycle.exit_code == STUCK
