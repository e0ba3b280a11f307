"""What made a run's numbers besides its recipe: the commit of the source tree and the libraries' versions.

Knows git and installed packages; does not know recipes or stages.
Invariant: asking never fails, for a tree without git and a library that is not installed are facts too.
"""

import importlib.metadata
import subprocess
from pathlib import Path

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "numpy",
    "pyarrow",
    "bm25s",
    "peft",
)


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that shape a run's numbers."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the source tree, with `+dirty` when it has changes, or `unknown`."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+dirty", "--exclude=*"],
            cwd=here, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
