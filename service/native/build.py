"""Compiles our own C: `python -m service.native.build [COMPILER]`.

Knows the C compiler and where libraries go; does not know what is computed.
Invariant: a library's name holds the hash of its sources, so that one of other sources is never loaded. Whether native
code runs at all is decided by what lies in `BUILT`: nothing there, and the service computes without it.
"""

import hashlib
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
BUILT: Final = FOLDER / "built"  # apart, or Python would take a library for a module
_FLAGS: Final = ("-std=c11", "-O3", "-shared", "-fPIC", "-Wall", "-Wextra")
_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Library:
    """One C file, what it includes, and what it needs of the processor."""

    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the library of these sources is, or would be."""
        told = b"".join((FOLDER / name).read_bytes() for name in self.sources)
        told += " ".join((*_FLAGS, *self.flags)).encode()
        return BUILT / f"{Path(self.sources[0]).stem}-{hashlib.sha256(told).hexdigest()[:12]}.so"

    def build(self, compiler: str = "cc") -> Path:
        """Compile the library unless it is there; OSError or SubprocessError if that fails."""
        path = self.path
        if path.exists():
            return path
        BUILT.mkdir(exist_ok=True)
        made = path.with_suffix(f".{time.time_ns()}")  # two may build at once
        source = str(FOLDER / self.sources[0])
        command = [*shlex.split(compiler), *_FLAGS, *self.flags, source, "-lm", "-o", str(made)]
        try:
            subprocess.run(  # noqa: S603  the compiler that whoever builds has named
                command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S
            )
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
        for other in BUILT.glob(f"{Path(self.sources[0]).stem}-*.so"):
            if other != path:
                other.unlink(missing_ok=True)
        return path


ENCODER: Final = Library(
    ("encoder.c", "kernels.h", "gelu.h"),
    ("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
)
WORDS: Final = Library(("words.c", "objects.h"))


def libraries_here() -> tuple[Library, ...]:
    """Return what this platform can compile; on macOS a library may not leave Python's functions to be found later."""
    platform = sysconfig.get_platform()
    if platform.endswith("x86_64"):
        return ENCODER, WORDS
    return (WORDS,) if platform.startswith("linux") else ()


def main(arguments: Sequence[str]) -> int:
    """Build and say what came of it; without a compiler the service computes without our C."""
    if not (libraries := libraries_here()):
        sys.stdout.write("native code: not built, it is for Linux and x86-64 alone\n")
        return 0
    try:
        paths = [library.build(*arguments[:1]) for library in libraries]
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"native code: not built, the compiler failed:\n{error.stderr}")
        return 1
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"native code: not built, {error}; name a C compiler\n")
        return 1
    sys.stdout.write(f"native code: {', '.join(path.name for path in paths)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
