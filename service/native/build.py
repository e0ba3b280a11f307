"""Compiles the native engine: `python -m service.native.build [COMPILER]`.

Knows the C compiler and where the library goes; does not know what is computed.
Invariant: the library's name holds the hash of its sources, so that one of other sources is never loaded.
"""

import hashlib
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
BUILT: Final = FOLDER / "built"  # apart, or Python would take the library for a module
COMPILED: Final = ("encoder.c", "words.c")
SOURCES: Final = (*COMPILED, "kernels.h", "gelu.h", "objects.h")
FLAGS: Final = (
    *("-std=c11", "-O3", "-shared", "-fPIC", "-Wall", "-Wextra"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
)
_TIMEOUT_S: Final = 120


def library_path() -> Path:
    """Return where the library of these sources is, or would be."""
    told = b"".join((FOLDER / name).read_bytes() for name in SOURCES) + " ".join(FLAGS).encode()
    return BUILT / f"encoder-{hashlib.sha256(told).hexdigest()[:12]}.so"


def build(compiler: str = "cc") -> Path:
    """Compile the library unless it is there; OSError or SubprocessError if that fails."""
    path = library_path()
    if path.exists():
        return path
    BUILT.mkdir(exist_ok=True)
    made = path.with_suffix(f".{time.time_ns()}")  # two may build at once
    try:
        subprocess.run(  # noqa: S603  the compiler that whoever builds has named
            [
                *shlex.split(compiler),
                *FLAGS,
                *(str(FOLDER / name) for name in COMPILED),
                "-lm",
                "-o",
                str(made),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    for other in BUILT.glob("encoder-*.so"):
        if other != path:
            other.unlink(missing_ok=True)
    return path


def main(arguments: Sequence[str]) -> int:
    """Build and say what came of it; without a compiler the service computes in ONNX Runtime alone."""
    if not sysconfig.get_platform().endswith("x86_64"):
        sys.stdout.write("native engine: not built, it is for x86-64 alone\n")
        return 0
    try:
        path = build(*arguments[:1])
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"native engine: not built, the compiler failed:\n{error.stderr}")
        return 1
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"native engine: not built, {error}; name a C compiler\n")
        return 1
    sys.stdout.write(f"native engine: {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
