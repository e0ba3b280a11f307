"""Compares shelfrank with other rerankers: the same weights, lists and arrivals, on the same cores, in one run.

Knows the order of a comparison; does not know how a reranker is installed, started or asked.
Invariant: rerankers take turns list by list and one is busy at a time; one that fails is reported with its reason.

    python benchmarks/peers/compare.py --docs                 set up, measure all, write docs/peers.md: about 12 minutes and a download
    python benchmarks/peers/compare.py --setup-only           only set up, into .cache/peers
    python benchmarks/peers/compare.py --skip-setup --phases library --lists 10,50 --append      a part, added to the last result

The last line is one JSON document; it is also kept in .cache/peers/result.json.
Exit codes: 0 measured, 1 could not measure.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.peers import report
from benchmarks.peers.figures import Row, merged, refuse_others
from benchmarks.peers.lists import Lists
from benchmarks.peers.process import Machine, PeerError
from benchmarks.peers.roster import ENVIRONMENTS, EXPORTER, LEVELS
from benchmarks.peers.setup import SetupError, is_set_up, make_models, reference_logits, set_up, versions
from benchmarks.peers.turns import BOXES_S, Run, chosen, closed, poisson
from benchmarks.shared.products import PRODUCTS
from benchmarks.shared.target import REPOSITORY, describe_commit, describe_machine, describe_versions
from bundle import Bundle, BundleError, read_bundle
from service.process.cpus import usable_cpus

MEASURED, FAILED = 0, 1
CACHE: Final = REPOSITORY / ".cache" / "peers"
PHASES: Final = ("library", "http", "poisson")
DISTINCT: Final = 16  # lists of a size
SCORED: Final = 4  # of them, whose scores are compared with the reference


def prepare(options: argparse.Namespace, bundle: Bundle, lists: Lists, missing: dict[str, str]) -> Path:
    """Set up environments, then models; SetupError if there are no models to compare with."""
    environments = options.cache / "env"
    wanted = [peer for level in LEVELS for peer in chosen(options.only, level) if peer.environment]
    for name in dict.fromkeys([EXPORTER, *(peer.environment for peer in wanted if peer.environment)]):
        reason = "it is not set up"
        try:
            if not options.skip_setup:
                print(f"setting up {name}", file=sys.stderr, flush=True)
                set_up(name, environments)
        except SetupError as error:
            reason = f"it could not be set up: {error}"
        if not is_set_up(name, environments):
            missing |= {peer.key: reason for peer in wanted if peer.environment == name}
            if name == EXPORTER:
                raise SetupError(f"no graphs for anybody, since {name}: {reason}")
    return make_models(bundle, lists, options.cache, environments, options.checkpoint)


def set_out(options: argparse.Namespace, bundle: Bundle) -> Run:
    """Make the lists, set up what is needed, and return a run that has measured nothing yet."""
    lists = Lists(bundle, options.products)
    asks = {size: lists.make(size, DISTINCT, options.seed) for size in options.lists}
    missing: dict[str, str] = {}
    models = prepare(options, bundle, lists, missing)
    environments = options.cache / "env"
    scored = {(size, place): ask for size in asks for place, ask in enumerate(asks[size][:SCORED])}
    reference = reference_logits(models, environments, list(scored.values()))
    logs = options.cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    longest = bundle.manifest.text.max_length
    machine = Machine(models, environments.resolve(), options.bundle, usable_cpus(), longest)
    known = dict(zip(scored, reference, strict=True))
    return Run(options, machine, lists, asks, bundle.manifest, known, logs, missing)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the phases and return the document; an empty one if only the setting up was asked for."""
    bundle = read_bundle(options.models_root, options.bundle)
    subject = {
        "bundle": {"name": options.bundle, "id": bundle.id},
        "weights": options.checkpoint.name if options.checkpoint else "bundle",
        "products": options.products.name,
    }
    before = json.loads(options.result.read_text(encoding="utf-8")) if options.append else {}
    refuse_others(before, subject)
    this = set_out(options, bundle)
    if options.setup_only:
        return {}
    if "http" not in options.phases:  # the Poisson phase takes its rate from rows of that one
        this.rows += [Row(**row) for row in before.get("rows", ())]
    known = len(this.rows)
    described = describe_machine()
    for level in LEVELS:
        if level in options.phases:
            closed(this, level)
    if "poisson" in options.phases:
        poisson(this)
    document = {
        "benchmark": "peers",
        "rows": [asdict(row) for row in this.rows[known:]],
        "facts": {key: asdict(fact) for key, fact in this.facts.items()},
        "missing": this.missing,
        "foreign_cpu": this.foreign,
        "packages": _packages(options.cache / "env"),
        **subject,
        "threads": this.machine.threads,
        "machine": described,
        "versions": describe_versions(),
        "commit": describe_commit(),
    }
    return merged(before, document)


def _packages(environments: Path) -> dict[str, dict[str, str]]:
    """Return the packages of every environment that is there."""
    return {name: versions(name, environments) for name in ENVIRONMENTS if is_set_up(name, environments)}


def main(argv: Sequence[str] | None = None) -> int:
    """Set up, measure, print the tables and the JSON document, return the exit code."""
    options = _parser().parse_args(argv)
    try:
        document = measure(options)
    except (SetupError, PeerError, BundleError, OSError, ValueError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    if options.setup_only:
        return MEASURED
    options.result.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(report.all_tables(document))
    if options.docs:
        report.write(document, REPOSITORY / "docs")
    print(json.dumps(document))
    return MEASURED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/peers/compare.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--phases", type=_words(PHASES), default=list(PHASES), help="of library,http,poisson [all]")
    add("--lists", type=_sizes, default=list(BOXES_S), help="products of a list [10,50,100,200]")
    add(
        "--only", type=lambda text: text.split(","), default=[], help="parts of names; shelfrank is always in"
    )
    add("--rounds", type=int, help="turns of each peer for each size; default: a time for each size")
    add("--rate", type=float, help="lists/s of the Poisson phase; default: half of the slowest server's")
    add("--bundle", default="default", help="bundle of shelfrank's [default]")
    add("--models-root", type=Path, default=REPOSITORY / "models", help="directory of bundles [models]")
    add("--checkpoint", type=Path, help="checkpoint folder for the peers; default: the bundle's own weights")
    add(
        "--products",
        type=Path,
        default=PRODUCTS,
        help="products, one JSON a line [benchmarks/shared/products.jsonl]",
    )
    add("--seed", type=int, default=1, help="seed of lists and arrivals [1]")
    add("--cache", type=Path, default=CACHE, help="folder of environments, models and results [.cache/peers]")
    add("--skip-setup", action="store_true", help="install nothing; what is not there is reported")
    add("--setup-only", action="store_true", help="install, make the models, and leave")
    add("--result", type=Path, default=CACHE / "result.json", help="JSON file [.cache/peers/result.json]")
    add("--append", action="store_true", help="add to the result of an earlier run")
    add("--docs", action="store_true", help="write docs/peers.md and docs/figures/peers.svg")
    return parser


def _words(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        words = text.split(",")
        if not set(words) <= set(known):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}")
        return words

    return parse


def _sizes(text: str) -> list[int]:
    sizes = sorted({int(part) for part in text.split(",")})
    if not all(1 <= size <= 1_000 for size in sizes):
        raise argparse.ArgumentTypeError("expected lists of 1 to 1000 products")
    return sizes


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that what was started is ended
    sys.exit(main())
