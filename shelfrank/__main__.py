"""The one door: `shelfrank VERB ...`, the same as `python -m service ...` and `python -m training ...`.

Knows the verbs, where each is done and which extra it needs; does not know their arguments, which are handed on.
Invariant: until a verb is chosen, nothing but the standard library is loaded.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Final


@dataclass(frozen=True, slots=True)
class Verb:
    """What a verb does, the program that does it, that program's own word for it, and the extra that it needs."""

    sentence: str
    program: str
    word: tuple[str, ...]
    extra: str


VERBS: Final = {
    "serve": Verb(
        "answer /v1/rerank over HTTP with a bundle; the default one comes along", "service", (), "serve"
    ),
    "import": Verb("make a bundle of a cross-encoder that you have", "training", ("import",), "train"),
    "tune": Verb("fit a bundle to your judgments or clicks", "training", ("tune",), "train"),
    "evaluate": Verb("measure bundles and services on your judgments", "training", ("evaluate",), "train"),
    "distil": Verb("run a recipe, from its data and a teacher to a bundle", "training", ("all",), "train"),
    "label": Verb("have a recipe's teacher score its unlabelled pairs", "training", ("label",), "train"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments after the verb to its program; return that program's exit code, or 2 if its extra is missing."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _parser().parse_args(given[:1]).verb
    verb = VERBS[name]
    try:
        code: int = import_module(f"{verb.program}.__main__").main([*verb.word, *given[1:]])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or find_spec(missing) is not None:
            raise  # a part of something that is there: a fault of ours or of its version
        sys.stderr.write(
            f"shelfrank {name}: {missing} is not installed: pip install 'shelfrank[{verb.extra}]'\n"
        )
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    rows = (f"  {name:10}{verb.sentence}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="shelfrank",
        usage="shelfrank VERB ...",
        description="\n".join(
            ("A product-search reranker: served, and trained on what you have.\n\nverbs:", *rows)
        ),
        epilog="`shelfrank VERB --help` tells a verb's own arguments.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--version", action="version", version=f"shelfrank {_version()}", help="tell the version and leave"
    )
    return parser


def _version() -> str:
    try:
        return metadata.version("shelfrank")
    except metadata.PackageNotFoundError:
        return "in a clone, not installed"


if __name__ == "__main__":
    sys.exit(main())
