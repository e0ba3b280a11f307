"""Measures the product catalogue: loading it, its size on disk, looking products up, and rows from what was found.

Knows the catalogue, the encoder and the figures people ask for; does not know HTTP or the model's graph.
Invariant: the last line is one JSON document, and rows from the catalogue that differ from those of the texts fail.

    python benchmarks/service/catalogue.py                        a million products, in a directory of its own
    python benchmarks/service/catalogue.py --products 100000      fewer

Exit codes: 0 measured, 1 could not measure.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder
from benchmarks.shared.percentile import percentile
from benchmarks.shared.products import read_products
from benchmarks.shared.target import REPOSITORY, describe_commit, describe_machine, describe_versions
from bundle import BundleError, PairEncoder, Product, read_bundle
from service.catalogue.catalogue import Catalogue
from service.catalogue.record import StoredProduct
from service.errors import CatalogueError, Refused

MEASURED, FAILED = 0, 1
LIST: Final = 50
BATCH: Final = 2_000
COLD_LISTS, WARM_LISTS, ROW_LISTS = 200, 2_000, 300
FIELDS: Final = ("title", "brand", "color", "category", "bullets", "description")
Figures = dict[str, float]


class TimedEncoder:
    """An encoder that adds up the time it spends on making payloads."""

    def __init__(self, encoder: PairEncoder) -> None:
        self.text_key = encoder.text_key
        self.seconds = 0.0
        self._encoder = encoder

    def pack(self, products: Sequence[Product]) -> list[bytes]:
        """Return the encoder's payloads."""
        start_s = time.perf_counter()
        payloads = self._encoder.pack(products)
        self.seconds += time.perf_counter() - start_s
        return payloads


def vary(rows: Sequence[dict[str, str]], index: int, seed: int) -> Product:
    """Return product `index` of a seed: a row with another brand, a model number and its sentences reordered."""
    rng = random.Random(f"{seed}/{index}")  # noqa: S311 - products, not secrets
    row, other = rows[index % len(rows)], rng.choice(rows)
    bullets = row["bullets"].split("\n")
    sentences = row["description"].split(". ")
    rng.shuffle(bullets)
    rng.shuffle(sentences)
    model = f"{rng.choice('ABCDEFGHKMPRSTX')}{rng.randrange(100, 9_999)}"
    title = row["title"].replace(row["brand"], f"{other['brand']} {model}", 1)
    return Product(
        title=title,
        brand=other["brand"],
        color=other["color"],
        category=row["category"],
        bullets="\n".join(bullets),
        description=". ".join(sentences),
    )


def product_id(index: int) -> str:
    """Return the id of product `index`; neighbours in the feed are not neighbours in the file."""
    return f"{index * 2_654_435_761 % 2**32:08x}"


def load(
    catalogue: Catalogue, encoder: PairEncoder, rows: Sequence[dict[str, str]], wanted: argparse.Namespace
) -> Figures:
    """Store all products, as bulk requests would, and return how fast that went and how large they are."""
    timed = TimedEncoder(encoder)
    put_s = text_bytes = 0.0
    for start in range(0, wanted.products, BATCH):
        indices = range(start, min(start + BATCH, wanted.products))
        batch = [StoredProduct(product_id(index), vary(rows, index, wanted.seed)) for index in indices]
        text_bytes += sum(len(text.encode()) for stored in batch for text in _texts(stored.product).values())
        start_s = time.perf_counter()
        catalogue.put(batch, [timed])
        put_s += time.perf_counter() - start_s
        if start % (BATCH * 25) == 0:
            print(f"{indices.stop:,} products, {put_s:.0f} s", file=sys.stderr, flush=True)
    return {
        "load_products_per_s": wanted.products / put_s,
        "load_products_per_s_without_tokenizing": wanted.products / (put_s - timed.seconds),
        "text_bytes": text_bytes,
        "used_bytes": catalogue.size_bytes(),
    }


def measure_lookups(
    catalogue: Catalogue, text_key: str, lists: Sequence[Sequence[str]], name: str
) -> Figures:
    """Return percentiles of the milliseconds that it takes to look up a list of ids."""
    times_ms = _times_ms(lambda ids: catalogue.lookup(ids, text_key), lists)
    return {f"{name}_p50_ms": _share(times_ms, 0.5), f"{name}_p99_ms": _share(times_ms, 0.99)}


def measure_rows(
    catalogue: Catalogue, encoder: PairEncoder, lists: Sequence[Sequence[str]], query: str
) -> Figures:
    """Return what rows and requests cost by id and by text; ValueError if the rows differ."""
    by_id_ms, by_text_ms, id_bytes, text_bytes = [], [], 0, 0
    for ids in lists:
        texts = [found[0] for found in map(catalogue.get, ids) if found is not None]
        start_s = time.perf_counter()
        packed = [found.product for found in catalogue.lookup(ids, encoder.text_key) if found is not None]
        packed_rows = encoder.encode(query, packed)
        between_s = time.perf_counter()
        text_rows = encoder.encode(query, texts)
        by_text_ms.append((time.perf_counter() - between_s) * 1_000)
        by_id_ms.append((between_s - start_s) * 1_000)
        if packed_rows != text_rows:
            raise ValueError("the rows of stored products are not those of their texts")
        id_bytes += _request_bytes(query, [{"id": identifier} for identifier in ids])
        text_bytes += _request_bytes(query, [_texts(product) for product in texts])
    return {
        "rows_by_id_p50_ms": _share(by_id_ms, 0.5),
        "rows_by_id_p99_ms": _share(by_id_ms, 0.99),
        "rows_by_text_p50_ms": _share(by_text_ms, 0.5),
        "rows_by_text_p99_ms": _share(by_text_ms, 0.99),
        "request_by_id_bytes": id_bytes / len(lists),
        "request_by_text_bytes": text_bytes / len(lists),
    }


def measure(encoder: PairEncoder, directory: Path, wanted: argparse.Namespace) -> Figures:
    """Load a catalogue in a directory and return all figures."""
    rows = read_products()
    rng = random.Random(wanted.seed)  # noqa: S311 - lists, not secrets
    ids = [product_id(index) for index in range(wanted.products)]
    lists = (rng.sample(ids, min(LIST, len(ids))) for _ in range(COLD_LISTS + 2 * WARM_LISTS + ROW_LISTS))
    data_file = directory / "data.mdb"
    catalogue = Catalogue(directory, wanted.max_bytes)
    figures = load(catalogue, encoder, rows, wanted)
    figures["disk_bytes"] = data_file.stat().st_blocks * 512
    catalogue.close()
    _forget(data_file)
    catalogue = Catalogue(directory, wanted.max_bytes)
    figures |= measure_lookups(catalogue, encoder.text_key, _take(lists, COLD_LISTS), "lookup_cold")
    _remember(data_file)
    measure_lookups(catalogue, encoder.text_key, _take(lists, WARM_LISTS), "warm-up")
    figures |= measure_lookups(catalogue, encoder.text_key, _take(lists, WARM_LISTS), "lookup_warm")
    figures |= measure_rows(catalogue, encoder, _take(lists, ROW_LISTS), rows[0]["query"])
    catalogue.close()
    return figures


def format_table(figures: Figures, products: int) -> str:
    """Return the figures as a Markdown table."""
    number, each = figures.__getitem__, lambda name: figures[name] / products
    lines = [
        ("load, tokenizing included", f"{number('load_products_per_s'):,.0f} products/s"),
        ("load, without tokenizing", f"{number('load_products_per_s_without_tokenizing'):,.0f} products/s"),
        ("size on disk", f"{number('disk_bytes') / 1e6:,.1f} MB, {each('disk_bytes'):,.0f} bytes a product"),
        ("in use", f"{number('used_bytes') / 1e6:,.1f} MB, {each('used_bytes'):,.0f} bytes a product"),
        ("texts alone", f"{number('text_bytes') / 1e6:,.1f} MB, {each('text_bytes'):,.0f} bytes a product"),
        *(
            (
                f"{LIST} {what}",
                f"p50 {number(name + '_p50_ms'):.3f} ms, p99 {number(name + '_p99_ms'):.3f} ms",
            )
            for what, name in (
                ("ids looked up, file not in memory", "lookup_cold"),
                ("ids looked up, file in memory", "lookup_warm"),
                ("ids to rows, lookup included", "rows_by_id"),
                ("texts to rows", "rows_by_text"),
            )
        ),
        (f"request of {LIST} ids", f"{number('request_by_id_bytes'):,.0f} bytes"),
        (f"request of {LIST} texts", f"{number('request_by_text_bytes'):,.0f} bytes"),
    ]
    return "\n".join(
        ["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in lines)]
    )


def _texts(product: Product) -> dict[str, str]:
    return {name: text for name in FIELDS if (text := getattr(product, name))}


def _request_bytes(query: str, documents: Sequence[dict[str, str]]) -> int:
    return len(json.dumps({"query": query, "documents": documents}, ensure_ascii=False).encode())


def _times_ms(call: Callable[[Sequence[str]], object], lists: Sequence[Sequence[str]]) -> list[float]:
    times_ms = []
    for ids in lists:
        start_s = time.perf_counter()
        call(ids)
        times_ms.append((time.perf_counter() - start_s) * 1_000)
    return times_ms


def _share(times_ms: Sequence[float], share: float) -> float:
    return percentile(times_ms, share) or 0.0


def _take(lists: Iterator[list[str]], number: int) -> list[list[str]]:
    return [next(lists) for _ in range(number)]


def _forget(path: Path) -> None:
    """Ask the system to drop a file from its memory; whether the disk below keeps it cannot be told."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # macOS has no such call: there the file stays in memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _remember(path: Path) -> None:
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/service/catalogue.py", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--products", type=int, default=1_000_000, help="products to load [1000000]")
    add("--bundle", default="default", help="bundle below models/ whose encoder tokenizes [default]")
    add("--directory", type=Path, help="where to put the catalogue's own directory; default: the system's")
    add("--max-bytes", type=int, default=8 << 30, help="catalogue_max_bytes [8 GiB]")
    add("--seed", type=int, default=1, help="seed of the products and of the lists [1]")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON document, return the exit code."""
    options = _parser().parse_args(argv)
    machine = describe_machine()
    try:
        bundle = read_bundle(REPOSITORY / "models", options.bundle)
        encoder = PairEncoder(bundle.files[bundle.manifest.tokenizer], bundle.manifest.text)
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            figures = measure(encoder, Path(directory), options)
    except (BundleError, CatalogueError, Refused, OSError, ValueError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return FAILED
    document = {
        "benchmark": "catalogue",
        "products": options.products,
        "list": LIST,
        "figures": {name: round(value, 4) for name, value in figures.items()},
        "bundle": bundle.id,
        "machine": machine,
        "versions": describe_versions(),
        "commit": describe_commit(),
        "options": {"seed": options.seed, "max_bytes": options.max_bytes},
    }
    print(format_table(figures, options.products))
    print(f"\n{options.products:,} products, bundle {bundle.id}, commit {document['commit']}")
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before, {machine['system']}"
    )
    print(", ".join(f"{name} {version}" for name, version in describe_versions().items()))
    print(json.dumps(document))
    return MEASURED


if __name__ == "__main__":
    sys.exit(main())
