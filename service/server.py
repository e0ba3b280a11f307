"""One serving process: builds the application, serves both listeners on one event loop, drains.

Knows the order of a start and of an end; does not know what is served.
Invariant: it accepts only after the bundle has proved itself, and the admin listener outlives the public one.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from bundle import BundleError
from service import create_app
from service.errors import CatalogueError, EngineError, KeyFileError
from service.http.connections import ConnectionLimiter
from service.http.protocol import GuardedProtocol, protocol_class
from service.process.descriptors import ADMIN_CONNECTIONS, max_connections
from service.process.lifecycle import DrainingServer, Lifecycle, State, url_of
from service.process.startup import exit_on_signal
from service.settings import Settings, SettingsError
from service.telemetry.logs import event
from service.telemetry.metrics import Metrics

BOOT_FAILED: Final = 3
BACKLOG: Final = 2_048
SWITCH_INTERVAL_S: Final = 0.001  # how long a worker's Python code may keep the event loop waiting


class SideServer(uvicorn.Server):
    """A server that leaves signals to the main one, and ends when that has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Take the address now, so that one in use is known at once; connections are accepted only after the start."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def bind_both(settings: Settings) -> tuple[socket.socket, socket.socket]:
    """Take both addresses, the public one first; OSError says which cannot be had."""
    public = bind(settings.host, settings.port)
    admin = bind(settings.admin_host, settings.admin_port)
    (host, port), (admin_host, admin_port) = (each.getsockname()[:2] for each in (public, admin))
    is_within = host == admin_host or any(ip_address(each).is_unspecified for each in (host, admin_host))
    if port == admin_port and is_within:  # the system lets two be bound, and refuses the second to listen
        raise OSError(f"cannot listen on {admin_host} port {port}: the public listener is there")
    return public, admin


def refuse_to_start(why: object) -> int:
    """Say in one line why there will be no service, and return the exit code."""
    sys.stderr.write(f"shelfrank: {why}\n")
    return BOOT_FAILED


def serve(settings: Settings, public: socket.socket, admin: socket.socket) -> int:
    """Load the bundle and serve it; return the exit code."""
    try:
        with exit_on_signal():
            app = create_app(settings)
    except BundleError as error:
        return refuse_to_start(f"bundle refused ({error.code}): {error}")
    except KeyFileError as error:
        return refuse_to_start(f"SHELFRANK_API_KEYS_FILE: {error}")
    except (EngineError, CatalogueError, SettingsError, OSError) as error:
        return refuse_to_start(error)
    for listener in (public, admin):
        try:
            listener.listen(BACKLOG)
        except OSError as error:  # another service that was starting too was faster
            return refuse_to_start(f"cannot listen on {url_of(listener)}: {error.strerror}")
    return serve_app(app, settings, public, admin)


def serve_app(app: FastAPI, settings: Settings, public: socket.socket, admin: socket.socket) -> int:
    """Serve an application until it has drained; return the exit code, or end with it if a worker hangs."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what a start leaves behind lives as long as the process
    metrics: Metrics = app.state.metrics
    lifecycle: Lifecycle = app.state.lifecycle

    def is_draining() -> bool:
        return lifecycle.state is State.DRAINING

    public_connections, admin_connections = (
        ConnectionLimiter(max_connections(), metrics),
        ConnectionLimiter(ADMIN_CONNECTIONS, metrics),
    )
    config = server_config(
        app, settings, protocol_class(settings, metrics, is_draining, public_connections), lifespan=True
    )
    server = DrainingServer(config, lifecycle, settings.drain_delay_s, admin_url=url_of(admin))
    beside = protocol_class(settings, metrics, is_draining, admin_connections)
    side = SideServer(server_config(app.state.admin, settings, beside, lifespan=False))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve_both(server, public, side, admin, app.state.rollout.request_reload))
        if lifecycle.exit_code:
            event("left", logging.ERROR, code=lifecycle.exit_code)
            logging.shutdown()
            os._exit(lifecycle.exit_code)  # a thread that hangs would hang the interpreter's own end too
    event("stopped")
    return 0


def server_config(
    app: ASGIApp, settings: Settings, protocol: type[GuardedProtocol], *, lifespan: bool
) -> uvicorn.Config:
    """Return how uvicorn serves an application of ours; only the public one has a lifespan, and drains for long."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on" if lifespan else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_timeout_s if lifespan else 1,
    )


async def _serve_both(
    server: uvicorn.Server,
    public: socket.socket,
    side: SideServer,
    admin: socket.socket,
    on_hangup: Callable[[], None],
) -> None:
    """Serve until the first server has drained; until then the second one serves metrics and health."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
    beside = asyncio.create_task(side.serve(sockets=[admin]))
    try:
        await server.serve(sockets=[public])
    finally:
        side.should_exit = True
        await beside
