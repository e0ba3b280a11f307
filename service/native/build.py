"""Compiles the native libraries: `python -m service.native.build [COMPILER]`, or each at its first use.

Knows the C compiler and where libraries go; does not know what they compute.
Invariant: a library's name holds the hash of its sources and platform, so that one of others is never loaded, nor one
from a folder that others may write to.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
BUILT: Final = FOLDER / "built"  # apart, or Python would take a library for a module
FLAGS: Final = (
    *("-std=c11", "-O3", "-shared", "-fPIC", "-Wall", "-Wextra"),
    # there, too, Python's functions are found when the library is loaded
    *(("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()),
)
_TIMEOUT_S: Final = 600  # with sanitizers, on a busy machine


@dataclass(frozen=True, slots=True)
class Library:
    """One C file with its headers, the flags it needs, and the processors it is for; all of them if none is named."""

    name: str
    headers: tuple[str, ...]
    flags: tuple[str, ...] = ()
    processor: str = ""

    @property
    def path(self) -> Path:
        """Where the library of these sources is, or would be."""
        sources = (FOLDER / name for name in (f"{self.name}.c", *self.headers))
        platform = (
            sysconfig.get_platform(),
            str(sysconfig.get_config_var("MULTIARCH")),
        )  # the latter names the C library
        content = b"".join(source.read_bytes() for source in sources)
        content += " ".join((*FLAGS, *self.flags, *platform)).encode()
        return BUILT / f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}.so"

    @property
    def is_for_this_processor(self) -> bool:
        """Whether it can be compiled here; whether it also runs is asked of it when it is loaded."""
        return sysconfig.get_platform().endswith(self.processor)


WORDS: Final = Library("words", ("objects.h",))
ENCODER: Final = Library(
    "encoder",
    ("kernels.h", "gelu.h"),
    ("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
    "x86_64",
)


@cache
def find(library: Library) -> tuple[Path, str]:
    """Return where a library is, and why it is not there if so.

    One that is not built beside its sources, as in an installed package, is compiled into the user's cache, once.
    """
    path = library.path
    if path.exists():
        return path, ""
    if not library.is_for_this_processor:
        return path, f"it is for {library.processor} alone"
    try:
        return build(library, folder=_own(cache_folder())), ""
    except FileNotFoundError:
        return path, "there is no C compiler (cc)"
    except subprocess.SubprocessError:
        return path, "the compiler failed, and python -m service.native.build shows how"
    except (OSError, RuntimeError) as error:  # the latter if nobody's home is known
        return path, str(error)


def cache_folder() -> Path:
    """Return where libraries are compiled at first use: `shelfrank` in the user's cache."""
    told = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if told.is_absolute():
        return told / "shelfrank"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "shelfrank"


def _own(folder: Path) -> Path:
    """Return a folder of this user's, made if it is not there; PermissionError if others may put code into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = folder.stat()
    if told.st_uid != os.getuid() or told.st_mode & 0o022:
        raise PermissionError(f"others may write to {folder}")
    return folder


def build(library: Library, compiler: str = "cc", *, folder: Path | None = None) -> Path:
    """Compile a library into a folder, BUILT if not said, unless it is there; OSError or SubprocessError if that fails."""
    path = (folder or BUILT) / library.path.name
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    made = path.with_suffix(f".{time.time_ns()}")  # two may build at once
    source = str(FOLDER / f"{library.name}.c")
    try:
        subprocess.run(  # noqa: S603  the compiler that was named on the command line
            [*shlex.split(compiler), *FLAGS, *library.flags, source, "-lm", "-o", str(made)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    for other in (
        BUILT.glob(f"{library.name}-*.so") if folder is None else ()
    ):  # in a cache they may be others'
        if other != path:
            other.unlink(missing_ok=True)
    return path


def main(arguments: Sequence[str]) -> int:
    """Build all that is for this processor and say what came of it; without them ONNX Runtime and Python do it all."""
    failed = False
    for library in (WORDS, ENCODER):
        if not library.is_for_this_processor:
            sys.stdout.write(f"native {library.name}: not built, it is for {library.processor} alone\n")
            continue
        try:
            sys.stdout.write(f"native {library.name}: {build(library, *arguments[:1]).name}\n")
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"native {library.name}: not built, the compiler failed:\n{error.stderr}")
            failed = True
        except (OSError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"native {library.name}: not built, {error}; name a C compiler\n")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
