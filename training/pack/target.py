"""Where a bundle goes that is made without a recipe: its name, and the folder that has to be free.

Knows names and folders; light to import, so that a wrong option is said before anything is loaded.
Invariant: another bundle is never replaced unasked.
"""

from pathlib import Path

from bundle.manifest import is_name
from training.errors import StageError


def check_names(*names: str) -> None:
    """StageError for a text that cannot name a bundle or a version."""
    for name in names:
        if not is_name(name):
            raise StageError(
                f"{name!r} cannot name a bundle or a version: expected a-z 0-9 . _ -, such as my-shop"
            )


def free_target(out: Path, name: str, *, replace: bool) -> Path:
    """Return the folder of the bundle; StageError if one is there that is not to be replaced."""
    if (target := out / name).exists() and not replace:
        raise StageError(f"{target} exists: choose another --name, or --replace it")
    return target
