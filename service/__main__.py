"""`python -m service`: one process that serves one bundle until it is told to stop.

Knows the order of a start; does not know what the parts do.
Invariant: it listens only after the bundle has proved itself; a start that fails says why in one line.
Exit codes: 0 after a drain, 3 if it could not start.
"""

import gc
import socket
import sys
from typing import Final

import uvicorn

from bundle import BundleError
from service import create_app
from service.errors import EngineError
from service.lifecycle import DrainingServer
from service.logs import configure_logs, event
from service.protocol import guarded
from service.settings import Settings, SettingsError, load_settings

BOOT_FAILED: Final = 3
BACKLOG: Final = 2_048
SWITCH_INTERVAL_S: Final = 0.001  # how long a worker's Python code may keep the event loop waiting


def main() -> int:
    """Start, serve, drain; return the exit code."""
    try:
        settings = load_settings()
        configure_logs(settings.log_format, settings.log_level)
        listener = _bind(settings.host, settings.port)
        server = _server(settings)
    except BundleError as error:
        return _refuse_to_start(f"bundle refused ({error.code}): {error}")
    except (SettingsError, EngineError, OSError) as error:
        return _refuse_to_start(str(error))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what a start leaves behind lives as long as the process
    server.run(sockets=[listener])
    event("stopped")
    return 0


def _server(settings: Settings) -> DrainingServer:
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=guarded(settings.receipt_timeout_s, app.state.metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    return DrainingServer(config, app.state.lifecycle, settings.drain_delay_s)


def _bind(host: str, port: int) -> socket.socket:
    """Take the address now, so that one in use is known at once; nobody is accepted before the start is over."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def _refuse_to_start(why: str) -> int:
    sys.stderr.write(f"shelfrank: {why}\n")
    return BOOT_FAILED


if __name__ == "__main__":
    sys.exit(main())
