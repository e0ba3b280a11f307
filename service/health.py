"""`python -m service.health [PID]`: asks the service that runs as process PID, or as process 1, whether it is ready.

Knows where Linux keeps arguments and environment of a process; does not know what ready means.
Invariant: it asks where the service listens, whether a flag, a variable or the default says so.
Exit codes: 0 if it is ready, 1 if it is not or cannot be asked.
"""

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.options import load_settings
from service.settings import Settings, SettingsError

TIMEOUT_S: Final = 2.0
_MODULE: Final = ["-m", "service"]


def settings_of(process: Path) -> Settings:
    """Return the settings of a process by its folder under /proc; an init that started it has the same arguments."""
    arguments = [part.decode() for part in (process / "cmdline").read_bytes().split(b"\0")[:-1]]
    starts = (place + 2 for place in range(len(arguments)) if arguments[place : place + 2] == _MODULE)
    variables = (part.decode() for part in (process / "environ").read_bytes().split(b"\0") if b"=" in part)
    values = {name: value for name, _, value in (each.partition("=") for each in variables)}
    return load_settings(arguments[next(starts, len(arguments)) :], values)


def main(arguments: Sequence[str]) -> int:
    """Ask once; return the exit code."""
    try:
        settings = settings_of(Path("/proc", *(arguments or ["1"])))
        connection = http.client.HTTPConnection(settings.host, settings.port, timeout=TIMEOUT_S)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (SettingsError, OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"shelfrank: {error}\n")
        return 1
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
