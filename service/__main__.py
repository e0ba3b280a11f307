"""`python -m service`: serves a bundle until it is stopped.

Knows what has to be right before anything is loaded; does not know how it is served.
Invariant: a start that fails says why in one line, and a signal ends it at once.
Exit codes: 0 after a drain, 3 if it could not start, 4 if a worker hung, 143 if it was told to stop twice or while it
started.
"""

import sys
from collections.abc import Sequence

from service.process.startup import prepare_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Start, serve, drain; return the exit code. The arguments default to the process's own."""
    prepare_process()
    from service.options import load_settings  # here, because a signal is to be heard while these are loaded
    from service.server import bind_both, refuse_to_start, serve
    from service.settings import SettingsError
    from service.telemetry.logs import configure_logs

    try:
        settings = load_settings(arguments)
        configure_logs(settings.log_format, settings.log_level)
        public, admin = bind_both(settings)
    except (SettingsError, OSError) as error:
        return refuse_to_start(error)
    return serve(settings, public, admin)


if __name__ == "__main__":
    sys.exit(main())
