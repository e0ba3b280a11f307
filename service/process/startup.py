"""What has to hold before anything else is loaded: signals are heard, and descriptors 0 to 2 are taken.

Knows signals and descriptors; does not know settings or what is served, and imports the standard library alone.
Invariant: from here on a signal to leave ends the process, and no socket is ever descriptor 0, 1 or 2.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

EXIT_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def prepare_process() -> None:
    """Take what was closed of descriptors 0 to 2, and hear signals.

    Process 1 of a container hears none that it has no handler for: one that comes while it starts would be lost, and
    the service would become ready after it was asked to stop.
    """
    _fill_standard_descriptors()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves there is nothing to reload
    for number in EXIT_SIGNALS:
        signal.signal(number, _exit_now)


def _fill_standard_descriptors() -> None:
    """Open /dev/null on those that are closed: the next socket would get the number, and log lines be sent to a client."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            taken = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so this one
            os.set_inheritable(taken, True)  # noqa: FBT003  it takes no keywords
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  for the whole process


def _exit_now(number: int, frame: FrameType | None = None) -> None:  # noqa: ARG001  as signal calls it
    os._exit(128 + number)


@contextlib.contextmanager
def exit_on_signal() -> Iterator[None]:
    """Exit at once on a signal, even while the main thread is in native code, where Python runs no handler.

    The runtime may be there for minutes, such as when it builds an engine for a GPU.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)  # as the signal module asks

    def listen() -> None:
        for number in os.read(read_end, 1):  # none if the other end was closed
            if number in EXIT_SIGNALS:
                _exit_now(number)

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write_end)
        listener.join()
        os.close(read_end)
