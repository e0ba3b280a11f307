"""Tests of service/server.py: a real process whose engine hangs; all else of it is in test_main.py."""

import json
import socket
import time
from http.client import HTTPConnection
from pathlib import Path

from tests.service.support import WAIT_S, serving

# The service as it is, but for its engine, which never comes back.
HANGING = """
import sys, threading
from pathlib import Path
from service.telemetry.logs import configure_logs
from service.server import bind, serve_app
from service.options import load_settings
from tests.service.support import FakeSession, fake_app
settings = load_settings(sys.argv[1:])
configure_logs("json", "info")
app = fake_app(settings.models_root, FakeSession(gate=threading.Event()), **settings.model_dump())
sys.exit(serve_app(app, settings, bind("127.0.0.1", 0), bind("127.0.0.1", 0)))
"""
FLAGS = ("--watchdog-s", "0.5", "--drain-delay-s", "1", "--drain-timeout-s", "1")


def _status(port: int, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_hang_ends_the_process(tiny_bundle: Path) -> None:
    """An engine that does not come back turns health red within a second of the limit, and ends the process with 4."""
    body = json.dumps({"query": "red shoes", "documents": ["red shoes"]})
    head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with serving(tiny_bundle, *FLAGS, program=("-c", HANGING)) as running:
        assert [200, 200] == [_status(running.admin_port, path) for path in ("/livez", "/readyz")]
        with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as client:
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            began_s = time.monotonic()
            while _status(running.admin_port, "/livez") == 200:
                time.sleep(0.01)
            took_s = time.monotonic() - began_s
            ready = {_status(running.port, "/readyz"), _status(running.admin_port, "/readyz")}

            assert ready == {503}
            assert (
                0.4 < took_s < 1.5 + 0.5
            )  # the limit, a look at the latest a second later, and a busy machine
            assert running.popen.wait(WAIT_S) == 4
    assert ["worker_stuck", "draining", "left"] == [
        line["event"] for line in running.lines if line["event"] in {"worker_stuck", "draining", "left"}
    ]
