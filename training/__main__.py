"""Command line: python -m training STAGE|study|frontier|report|crosscheck --recipe FILE [--set section.key=value ...].

And python -m training VERB ..., with options of the verb's own: `python -m training VERB --help` lists them.
Knows stages and verbs by name; does not know what they do.
Invariant: an expected failure is one line on stderr and exit code 2; a bug keeps its traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bundle.errors import BundleError
from training.errors import DataError, RecipeError, StageError, Unfinished
from training.preflight import check_models
from training.recipe import load_recipe
from training.stages import STAGES, Run

# what is no stage: it reads finished ones; the --recipe of study, frontier and report is a file of its own kind
PROGRAMS = {
    "study": ("training.research.study", "run_study"),
    "frontier": ("training.research.frontier", "run_frontier"),
    "report": ("training.research.report", "run_report"),
    "crosscheck": ("training.export.crosscheck", "run_crosscheck"),
}
# what needs no recipe: each module has `arguments(parser)` and `run(options) -> int`, which raises what main expects
VERBS = {
    "evaluate": "training.evaluate.command",  # the stage of that name is the one with a recipe
    "import": "training.importing.command",
    "tune": "training.tune.command",
}
STAGE_HELP = (
    "all runs every stage that is not up to date; study, frontier and report take a file of training/studies; "
    "crosscheck compares the exported graph with Optimum's"
)
VERB_HELP = (
    f"without a recipe, by options of their own: {', '.join(VERBS)}; see `python -m training VERB --help`"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb, one stage, or all of a recipe's stages in order."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in VERBS and not (given[0] in STAGES and _names_a_recipe(given)):
            return _run_verb(*given)
        _run_stages(given)
    except Unfinished as rest:
        print(rest, file=sys.stderr)
    except (RecipeError, DataError, StageError, BundleError) as error:
        return _refused(error)
    except OSError as error:  # a disk that is full, a folder that may not be written
        return _refused(f"{error.filename}: {error.strerror}" if error.filename else error)
    return 0


def _names_a_recipe(given: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == "--recipe" for word in given)


def _run_verb(name: str, *rest: str) -> int:
    verb = import_module(VERBS[name])
    parser = argparse.ArgumentParser(prog=f"python -m training {name}", description=verb.__doc__)
    verb.arguments(parser)
    code: int = verb.run(parser.parse_args(rest))
    return code


def _run_stages(arguments: Sequence[str]) -> None:
    given = _stage_parser().parse_args(arguments)
    weights = _folders(given.weights)
    if given.stage in PROGRAMS:
        module, name = PROGRAMS[given.stage]
        getattr(import_module(module), name)(given.recipe, given.set, weights)
        return
    run = Run(load_recipe(given.recipe, given.set), weights, given.ray)
    stages = run.wanted() if given.stage == "all" else [given.stage]
    check_models(run, stages)
    for stage in stages:
        run.execute(stage)


def _stage_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__, epilog=VERB_HELP)
    parser.add_argument("stage", choices=["all", *STAGES, *PROGRAMS], help=STAGE_HELP)
    parser.add_argument("--recipe", type=Path, required=True, help="a TOML file, see training/recipes")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe value"
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="MODEL=DIR",
        help="local folder of a model the recipe names",
    )
    parser.add_argument(
        "--ray",
        type=int,
        default=0,
        metavar="ACTORS",
        help="judge, label, panel: score shards on a Ray cluster",
    )
    return parser


def _refused(reason: object) -> int:
    line = " ".join(str(reason).split())
    print("error:", "".join(char if char.isprintable() else "\ufffd" for char in line), file=sys.stderr)
    return 2


def _folders(given: list[str]) -> dict[str, str]:
    folders = {}
    for item in given:
        model, equals, folder = item.partition("=")
        if not equals or not Path(folder).is_dir():
            raise RecipeError(f"--weights {item}: expected MODEL=DIR with an existing folder")
        folders[model] = folder
    return folders


if __name__ == "__main__":
    sys.exit(main())
