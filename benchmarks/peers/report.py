"""Writes what benchmarks/peers/compare.py measured as tables, as a figure and as docs/peers.md.

Knows the JSON document of that benchmark; does not measure anything. The figure needs matplotlib.
Invariant: no figure is written that is not in the document.

    python benchmarks/peers/report.py .cache/peers/result.json      docs/peers.md and docs/figures/peers.svg anew
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.peers.roster import BASELINE, LEVELS, OURS, PEERS
from benchmarks.shared.target import REPOSITORY

Document = Mapping[str, Any]
TITLES: Final = {
    "library": "As a library",
    "http": "As a server, one list at a time",
    "poisson": "As a server, at random times",
}
_NAMED: Final = {  # of the packages of an environment, those that matter
    *("fastapi", "fastembed", "flashrank", "infinity-emb", "litserve", "nncf", "numpy", "nvidia-pytriton"),
    *("onnxruntime", "openvino", "optimum", "sentence-transformers", "tokenizers", "torch", "transformers"),
}
_ORDER: Final = [peer.name for peer in PEERS]


def rows_of(document: Document, kind: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return the rows of a kind by peer and size."""
    return {(row["peer"], row["products"]): row for row in document["rows"] if row["kind"] == kind}


def medians(document: Document, kind: str) -> str:
    """Return a table of medians: a line a peer, a column a size, and how many times shelfrank's each is."""
    rows = rows_of(document, kind)
    sizes = sorted({size for _, size in rows})
    lines = []
    for peer in _peers(rows):
        cells = [peer]
        for size in sizes:
            row, own = rows.get((peer, size)), rows.get((OURS, size))
            cells.append(_times(row, own))
        lines.append(cells)
    return _table(["p50 ms, lists of", *map(str, sizes)], lines)


def details(document: Document, kind: str, size: int) -> str:
    """Return a table of everything that was measured at one size."""
    rows = rows_of(document, kind)
    lines = [_detail(rows[peer, size]) for peer in _peers(rows) if (peer, size) in rows]
    return _table(
        ["peer", "lists", "p50 ms", "p95 ms", "p99 ms", "pairs/s", "computed / real tokens", "errors"], lines
    )


def facts(document: Document, level: str) -> str:
    """Return a table of what goes with the times: settings, memory, start, and distance from the fp32 reference."""
    lines = []
    for fact in sorted(document["facts"].values(), key=lambda fact: _ORDER.index(fact["name"])):
        if fact["level"] == level:
            told = [
                row
                for (peer, _), row in rows_of(document, level).items()
                if peer == fact["name"] and row["score_error"] is not None
            ]
            error = f"{max(row['score_error'] for row in told):.4f}" if told else "-"
            rank = f"{min(row['spearman'] for row in told):.4f}" if told else "-"
            cells = [fact["name"], fact["precision"], f"{fact['startup_s']:.1f}", f"{fact['memory_mb']:.0f}"]
            lines.append([*cells, f"{fact['idle_cpu']:.1%}", error, rank, fact["settings"]])
    heads = ["peer", "precision", "start s", "memory MB", "CPU when idle", "largest score error"]
    return _table([*heads, "least Spearman", "settings"], lines, left=(0, 1, 7))


def goals(document: Document) -> str:
    """Say by how much shelfrank is ahead of the two yardsticks at 50 products, and where a peer is ahead of it."""
    lines = []
    for other in (BASELINE, "sentence-transformers, torch"):
        rows = rows_of(document, "library")
        if (other, 50) in rows and (OURS, 50) in rows:
            times = rows[other, 50]["p50_ms"] / rows[OURS, 50]["p50_ms"]
            lines.append(f"- lists of 50 as a library, times the median of shelfrank: {other} {times:.2f}")
    for kind in LEVELS:
        rows = rows_of(document, kind)
        for (peer, size), row in sorted(rows.items()):
            own = rows.get((OURS, size))
            if own and peer != OURS and row["p50_ms"] <= own["p50_ms"]:
                lines.append(f"- {peer} is ahead of shelfrank: {kind}, lists of {size}")
    return "\n".join(lines)


def all_tables(document: Document) -> str:
    """Return every table with its title."""
    parts = []
    for kind, title in TITLES.items():
        rows = rows_of(document, kind)
        sizes = sorted({size for _, size in rows})
        if kind != "poisson" and sizes:
            parts += [f"## {title}", medians(document, kind)]
        for size in sizes:
            rate = next(row["rate"] for (_, of), row in rows.items() if of == size)
            at = f", {rate:g} lists/s" if rate else ""
            parts += [f"{'##' if kind == 'poisson' else '###'} {title}: lists of {size}{at}"]
            parts += [details(document, kind, size)]
    for level in LEVELS:
        if any(fact["level"] == level for fact in document["facts"].values()):
            parts += [f"## What goes with it: {level}", facts(document, level)]
    if document["missing"]:
        absent = [f"- {key}: {reason}" for key, reason in sorted(document["missing"].items())]
        parts += ["## Not measured", "\n".join(absent)]
    return "\n\n".join(part for part in (goals(document), *parts) if part)


def page(document: Document) -> str:
    """Return docs/peers.md."""
    machine, packages = document["machine"], document["packages"]
    if document["weights"] == "bundle":
        weights = (
            "The peers' checkpoint is made of the bundle's own graph: where that is int8, of what its integers stand for, in fp32.\n"
            "So all have the same weights, and the score error of shelfrank is what rounding of activations adds to that;\n"
            "what rounding of weights cost is in the bundle's card."
        )
    else:
        weights = f"The peers' checkpoint is `{document['weights']}`, from which the bundle was made."
    named = {
        name: [f"{package} {each[package]}" for package in each if package.lower() in _NAMED]
        for name, each in packages.items()
    }
    listed = "\n".join(f"- {name}: {', '.join(found)}" for name, found in named.items())
    return f"""# Beside other rerankers

This page is written by `python benchmarks/peers/compare.py --docs`; [docs/figures/peers.svg](figures/peers.svg) is its figure.
The program installs each peer into an environment of its own and lets all of them rank the same lists in turns, with the same weights, on the same {document["threads"]} cores.

{weights}

A list is a query and products of `{document["products"]}`, with title, brand and color; peers that do not know fields get them joined, which gives the same token ids.
The products of `products.jsonl` are invented, with the lengths that real catalogues have; `--products` names another file.
Texts that a field's limit would cut are shortened beforehand for all peers; a list longer than the file has some products twice.
Only one peer is busy at a time: its turn begins with a pause and a list that is not timed, followed by the timed ones.
The time of a library is measured from texts to scores, the time of a server from the first byte of the request to the last byte of the answer, on a keep-alive connection with the client on the same cores.
With few lists, the p99 is the slowest of them.
shelfrank looks up the token ids of words that it has met before; it computes every pair, and its score cache is off.
The score error is the largest difference between sigmoids and those of the same checkpoint in torch and fp32, over the first lists of each size.
Memory is the resident memory of all processes of a peer, after the phase in which it was largest; concurrent requests need more.

"TEI's rules" is an emulation: text-embeddings-inference is in no package registry, so its batching was re-implemented in Python (`benchmarks/peers/runners/tei_rules.py`); its overhead besides computing is not that of the original.
infinity needs one changed line to open a local folder, and omits token types, which explains its score error.
Triton is the server from the nvidia-pytriton wheel, which has only the Python backend.

![p50 by list](figures/peers.svg)

{all_tables(document)}

## Where it was measured

Other programs took meanwhile, in cores: {", ".join(f"{what} {cores:.2f}" for what, cores in document["foreign_cpu"].items())}.

{machine["cpu"]}, {machine["cores"]} cores, load {machine["load_before"]} before, {machine["system"]}; commit {document["commit"]}, bundle {document["bundle"]["name"]} ({document["bundle"]["id"]}).
shelfrank: {", ".join(f"{name} {version}" for name, version in document["versions"].items())}.

{listed}
"""


def draw(document: Document, path: Path) -> None:
    """Draw the medians over the size of the list, libraries beside servers."""
    import matplotlib as mpl  # noqa: PLC0415  the tables do not need it
    from matplotlib.figure import Figure  # noqa: PLC0415  as above

    mpl.rcParams["svg.hashsalt"] = "shelfrank"  # the same file for the same figures
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), LEVELS, strict=True):
        rows = rows_of(document, kind)
        for peer in _peers(rows):
            sizes = sorted(size for of, size in rows if of == peer)
            is_own = peer == OURS
            axes.plot(
                sizes,
                [rows[peer, size]["p50_ms"] for size in sizes],
                marker="o",
                markersize=4,
                linewidth=3 if is_own else 1.2,
                color="black" if is_own else None,
                label=peer,
            )
        sizes = sorted({size for _, size in rows})
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.set_xlabel("products of a list")
        axes.set_title(f"{TITLES[kind].lower()}: median, ms", fontsize=10)
        axes.grid(alpha=0.3)
        if rows:
            axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def write(document: Document, docs: Path) -> None:
    """Write the page and its figure."""
    draw(document, docs / "figures" / "peers.svg")
    (docs / "peers.md").write_text(page(document), encoding="utf-8")


def _detail(row: Mapping[str, Any]) -> list[str]:
    times = ["-" if row[name] is None else f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
    padding = "-" if row["padding"] is None else f"{row['padding']:.2f}"
    return [row["peer"], str(row["lists"]), *times, f"{row['pairs_per_s']:.0f}", padding, str(row["errors"])]


def _times(row: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> str:
    if row is None or row["p50_ms"] is None:
        return "-"
    text = f"{row['p50_ms']:.1f}"
    is_other = own is not None and own["p50_ms"] is not None and row is not own
    return f"{text} ({row['p50_ms'] / own['p50_ms']:.1f}x)" if own and is_other else text


def _peers(rows: Mapping[tuple[str, int], object]) -> list[str]:
    return sorted({peer for peer, _ in rows}, key=_ORDER.index)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    rule = "|".join(" --- " if place in left else " ---: " for place in range(len(heads)))
    return "\n".join(
        [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Read a result and write page and figure."""
    (result,) = sys.argv[1:] if argv is None else argv
    write(json.loads(Path(result).read_text(encoding="utf-8")), REPOSITORY / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
