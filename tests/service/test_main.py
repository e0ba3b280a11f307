"""Tests of service/__main__.py: real processes, their signals and their exit codes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from service.settings import PREFIX
from tests.service.support import WAIT_S, Process, ask, serving, start

BODY = json.dumps({"query": "red shoes", "documents": ["coffee mug", {"id": 7, "title": "red shoes"}]})


def _fails(root: Path, *flags: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    popen = start(root, *flags, environ=environ)
    _, err = popen.communicate(timeout=WAIT_S)
    return popen.returncode, err


def test_a_real_process_ranks(process: Process) -> None:
    """Over a real socket the ids and scores come back, and the process has said where it listens."""
    status, raw = ask(process.port, "POST", "/v1/rerank", BODY)
    results = json.loads(raw)["results"]

    assert status == 200
    assert [(1, 7), (0, None)] == [(result["index"], result.get("id")) for result in results]
    assert ["loaded", "listening"] == [line["event"] for line in process.lines[:2]]
    assert ask(process.port, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("flags", "environ", "named"),
    [
        (["--port", "70000"], {}, "--port"),
        (["--prot", "1"], {}, "--prot"),
        ([], {PREFIX + "WORKERS": "many"}, PREFIX + "WORKERS"),
        ([], {PREFIX + "WORKER": "1"}, "did you mean " + PREFIX + "WORKERS"),
        (["--bundle", "absent"], {}, "not_found"),
        (["--bundle", "../tiny"], {}, "invalid_name"),
        (["--precision", "int8"], {}, "no int8 graph"),
        (["--device", "cuda"], {}, "cuda"),
        (["--host", "203.0.113.1"], {}, "203.0.113.1"),
        (["--admin-host", "203.0.113.1"], {}, "203.0.113.1"),
        (["--cors-origins", "shop.example"], {}, "--cors-origins"),
    ],
)
def test_a_start_that_cannot_succeed_says_why(
    tiny_bundle: Path, flags: list[str], environ: dict[str, str], named: str
) -> None:
    """Exit code 3 and one line that names the fault, without a traceback."""
    code, err = _fails(tiny_bundle, *flags, environ=environ)
    lines = err.splitlines()

    assert code == 3
    assert len(lines) == 1
    assert lines[0].startswith("shelfrank: ")
    assert named in lines[0]


def test_an_address_in_use_is_named(tiny_bundle: Path) -> None:
    """A port that another process has is told before the bundle is read."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = _fails(tiny_bundle, "--port", str(port), "--bundle", "absent")

    assert code == 3
    assert f"127.0.0.1 port {port}" in err


@pytest.mark.parametrize(
    ("host", "admin_host"), [("127.0.0.1", "127.0.0.1"), ("0", "127.0.0.1"), ("127.0.0.1", "0")]
)
def test_two_listeners_on_one_address_are_refused(tiny_bundle: Path, host: str, admin_host: str) -> None:
    """Both listeners on one address, or one within the other's, is one line before the bundle is read."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    flags = ("--host", host, "--port", port, "--admin-host", admin_host, "--admin-port", port)
    code, err = _fails(tiny_bundle, *flags, "--bundle", "absent")

    assert (3, 1) == (code, err.count("\n"))
    assert f"port {port}: the public listener is there" in err


def test_who_loses_the_race_for_an_address_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    """A second service that took the same address while this one was starting is one line and exit code 3."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))  # and does not listen yet
        port = other.getsockname()[1]
        keys = tmp_path / "keys"
        os.mkfifo(keys)  # until somebody writes to it the start goes on
        popen = start(tiny_bundle, "--port", str(port), "--api-keys-file", str(keys), "--log-level", "error")
        with keys.open("w", encoding="ascii") as file:  # opened by both, so the service has bound the address
            other.listen()
            file.write(f"shop {'0' * 64}\n")
        _, err = popen.communicate(timeout=WAIT_S)

    assert (3, 1) == (popen.returncode, err.count("\n"))
    assert f"cannot listen on http://127.0.0.1:{port}" in err


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "golden.jsonl", "manifest.json", "card.md"])
def test_a_corrupt_bundle_is_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    """One flipped bit in any file of the bundle stops the start with exit code 3."""
    shutil.copytree(tiny_bundle / "tiny", tmp_path / "tiny")
    path = tmp_path / "tiny" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    code, err = _fails(tmp_path)

    assert code == 3
    assert err.startswith("shelfrank: bundle refused (")
    assert err.count("\n") == 1


def test_sigterm_drains(tiny_bundle: Path) -> None:
    """After SIGTERM readiness is red while requests, also on new connections, are served; then exit code 0."""
    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "1") as running:
        running.popen.send_signal(signal.SIGTERM)
        while ask(running.port, "GET", "/readyz")[0] == 200:
            pass
        answers = [ask(running.port, "POST", "/v1/rerank", BODY)[0] for _ in range(10)]

        assert {200} == set(answers)
        assert running.popen.wait(WAIT_S) == 0
    assert ["draining", "stopped"] == [line["event"] for line in running.lines if line["event"] != "ranked"][
        -2:
    ]


def test_requests_in_flight_are_answered(tiny_bundle: Path) -> None:
    """A request whose body arrives only after SIGTERM is still answered in full."""
    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "0") as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S)
        head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(BODY)}\r\n\r\n{BODY[:10]}".encode())
        while b"shelfrank_in_flight_requests 1.0" not in ask(running.admin_port, "GET", "/metrics")[1]:
            pass
        running.popen.send_signal(signal.SIGTERM)
        while not any(line["event"] == "draining" for line in running.lines):
            time.sleep(0.01)
        client.sendall(BODY[10:].encode())
        answer = b""
        while part := client.recv(65_536):
            answer += part
        client.close()

        assert answer.startswith(b"HTTP/1.1 200")
        assert b"relevance_score" in answer
        assert running.popen.wait(WAIT_S) == 0


def test_the_second_port_answers_until_the_end(tiny_bundle: Path) -> None:
    """While the service drains and even after its own port has closed, metrics and health can be had."""
    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "0") as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S)
        head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(BODY)}\r\n\r\n{BODY[:10]}".encode())
        while b"shelfrank_in_flight_requests 1.0" not in ask(running.admin_port, "GET", "/metrics")[1]:
            pass
        running.popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S).close()
                time.sleep(0.01)
        answers = [ask(running.admin_port, "GET", path)[0] for path in ("/livez", "/readyz", "/metrics")]
        client.close()

        assert [200, 503, 200] == answers
        assert running.popen.wait(WAIT_S) == 0


def test_a_second_signal_ends_at_once(tiny_bundle: Path) -> None:
    """A second SIGTERM does not wait for the drain, and the exit code says so."""
    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "300") as running:
        running.popen.send_signal(signal.SIGTERM)
        while ask(running.port, "GET", "/readyz")[0] == 200:
            pass

        assert running.stop(signal.SIGTERM) == 143


def test_ctrl_c_does_not_wait(tiny_bundle: Path) -> None:
    """SIGINT leaves without the delay, with exit code 0."""
    with serving(tiny_bundle, "--workers", "1", "--drain-delay-s", "300") as running:
        assert running.stop(signal.SIGINT) == 0


def test_many_clients_at_once_get_their_own_answers(process: Process) -> None:
    """Requests in parallel are not mixed up: each answer has the ids of its request."""
    wrong: list[object] = []

    def client(number: int) -> None:
        documents = [{"id": f"{number}-{place}", "title": "red shoes " * place} for place in range(1, 12)]
        for _ in range(10):
            body = json.dumps({"query": "red shoes", "documents": documents})
            status, raw = ask(process.port, "POST", "/v1/rerank", body)
            told = json.loads(raw)["results"]
            if status != 200 or any(result["id"] != documents[result["index"]]["id"] for result in told):
                wrong.append(raw)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)

    assert wrong == []


def test_the_log_holds_no_client_text(process: Process) -> None:
    """Whatever was asked and refused, the log lines of the process hold none of it."""
    for body in ('{"query": "secretword", "documents": ["secretword"]}', '{"secretword": 1}', "secretword"):
        ask(process.port, "POST", "/v1/rerank", body)
    ask(process.port, "GET", "/secretword")
    ask(process.port, "GET", "/livez")

    assert "secretword" not in json.dumps(process.lines)


def test_a_running_service_has_no_training_library(process: Process) -> None:
    """The memory map of a real process shows no library of torch, transformers or optimum."""
    mapped = Path(f"/proc/{process.popen.pid}/maps").read_text(encoding="utf-8")

    assert "onnxruntime" in mapped
    assert not any(f"/{name}/" in mapped for name in ("torch", "transformers", "optimum", "scipy", "pyarrow"))
