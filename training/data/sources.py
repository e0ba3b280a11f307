"""Read judged lists and unlabelled pools from four kinds of source into one Parquet schema.

Knows sources, columns and labels; does not know file formats or models.
Invariant: all pairs of one normalised query, over all sources, fall into the same split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.data import synthetic
from training.data.formats import shown
from training.data.grades import Row, judged, number, verdict
from training.data.splits import with_splits
from training.data.tables import Line, read_lines
from training.errors import DataError
from training.sections.data import DataRecipe, SourceRecipe
from training.stages import Context, Metrics

FIELDS = ("title", "brand", "color", "category", "bullets", "description")
ALIASES = {
    "product_id": ("product_id", "docid"),  # Quepid's names stand second
    "grade": ("grade", "rating"),
    "rank": ("rank", "position"),
}
JUDGEMENTS = "judgements.csv.gz"  # of a judged folder
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev"), "validation"
)
ESCI_NAMES = {
    "title": ("product_title",),
    "brand": ("product_brand",),
    "color": ("product_color",),
    "bullets": ("product_bullet_point",),
    "description": ("product_description",),
    "locale": ("product_locale",),
    "label": ("esci_label",),
}

PAIRS = pa.schema(
    [("dataset", pa.string()), ("query_id", pa.string()), ("query", pa.string()), ("locale", pa.string())]
    + [("product_id", pa.string())]
    + [(field, pa.string()) for field in FIELDS]
    + [("label", pa.string()), ("grade", pa.int32()), ("target", pa.float32()), ("gain", pa.float32())]
    + [("split", pa.string())]
)
POOL_PRODUCTS = pa.schema(
    [("product_id", pa.string())]
    + [(f, pa.string()) for f in FIELDS]
    + [("locale", pa.string()), ("source", pa.string())]
)
POOL_QUERIES = pa.schema([("query", pa.string()), ("source", pa.string())])


def read_judged_folder(source: SourceRecipe) -> Iterator[Row]:
    """Read queries.jsonl.gz, products.jsonl.gz and judgements.csv.gz of one folder."""
    folder = Path(source.path)
    files = {
        "queries_file": "queries.jsonl.gz",
        "products_file": "products.jsonl.gz",
        "path": JUDGEMENTS,
    }
    return read_table(source.model_copy(update={role: str(folder / name) for role, name in files.items()}))


Worth = Callable[[Line], Row | None]


def read_table(source: SourceRecipe, worth: Worth | None = None) -> Iterator[Row]:
    """Read judgements whose columns `source.columns` maps onto ours: with all texts, or with ids for some.

    Queries come from `source.queries_file` by query_id, and products from `source.products_file` by product_id, where the
    recipe names such files. `worth` says what a row says in place of its grade, None that it is left out.
    """
    worth = worth or partial(verdict, source=source)
    names = column_names(source)
    queries = _by_id(source.queries_file, "query_id", names)
    products = _by_id(source.products_file, "product_id", names)
    lines = [
        line
        for line in read_lines(Path(source.path), names)
        # Quepid writes a query that nobody rated with neither product nor rating
        if not source.products_file or any(map(line.text, ("product_id", "label", "grade")))
    ]
    of_queries = _found(lines, "query_id", queries) if source.queries_file else lines
    of_products = _found(lines, "product_id", products) if source.products_file else lines
    for line, query, product in zip(lines, of_queries, of_products, strict=True):
        if (told := worth(line)) is None:
            continue
        text, title = query.needed("query"), product.needed("title", joined=True)
        locale = line.text("locale") or query.text("locale")
        yield judged(
            {
                "query_id": line.text("query_id") or text,
                "query": text,
                "locale": locale or (source.locales[0] if source.locales else "us"),
                "product_id": line.text("product_id") or hashlib.sha256(title.encode()).hexdigest()[:16],
            }
            | {field: product.texts(field) for field in FIELDS}
            | {"rank": _rank(line, is_named="rank" in source.columns)}
            | told
            | (_published_split(line) if "split" in source.columns else {})
        )


def column_names(source: SourceRecipe) -> dict[str, tuple[str, ...]]:
    """Return under which names a file may have each column: the recipe's, and ours, for the files may differ in theirs."""
    mapped = {ours: (theirs, *ALIASES.get(ours, (ours,))) for ours, theirs in source.columns.items()}
    return ALIASES | mapped


def _by_id(path: str, column: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, Line]:
    return {line.needed(column): line for line in read_lines(Path(path), names)} if path else {}


def _found(lines: Sequence[Line], column: str, known: Mapping[str, Line]) -> list[Line]:
    """Return what judgements refer to by an id; DataError if its file lacks some: the first, and how many."""
    absent: dict[str, Line] = {}
    for line in lines:
        if (told := line.needed(column)) not in known:
            absent.setdefault(told, line)
    if absent:
        (first, line), *others = absent.items()
        where = next(iter(known.values())).path if known else "a file without rows"
        more = f", nor are {len(others)} more" if others else ""
        raise line.fault(column, f"{shown(first)} is in no row of {where}{more}")
    return [known[line.needed(column)] for line in lines]


def _rank(line: Line, *, is_named: bool) -> float | None:
    """Return the place that the list's own engine gave a product, if the file says so by a number."""
    told = line.text("rank")
    if math.isfinite(place := number(told)):
        return place
    if told and is_named:
        raise line.fault("rank", f"{shown(told)} is no number")
    return None


def _published_split(line: Line) -> Row:
    told = line.needed("split")
    if (split := SPLITS.get(told.casefold())) is None:
        raise line.fault("split", f"{shown(told)} is none of train, validation and test")
    return {"split": split}


def read_esci_parquet(source: SourceRecipe) -> Iterator[Row]:
    """Read the ESCI dataset as published: one Parquet file of examples, one of products.

    The published test split becomes `test`; with `large_version` rows whose query is tested in the small
    version are dropped from training, since they answer its tests.
    """
    version = "large_version" if source.large_version else "small_version"
    wanted, tested = [], set()
    for line in read_lines(Path(source.path) / "shopping_queries_dataset_examples.parquet", ESCI_NAMES):
        if line.text("small_version") == "1" and line.text("split") == "test":
            tested.add(line.text("query_id"))
        if line.text(version) == "1":
            wanted.append(line)
    asked = {_esci_key(line) for line in wanted}
    path = Path(source.path) / "shopping_queries_dataset_products.parquet"
    products = {key: line for line in read_lines(path, ESCI_NAMES) if (key := _esci_key(line)) in asked}
    for line in wanted:
        is_test = line.text("split") == "test"
        if not is_test and line.text("query_id") in tested:
            continue
        if (product := products.get(_esci_key(line))) is None:
            raise line.fault("product_id", f"{_esci_key(line)} is in no row of {path}")
        yield judged(
            {name: line.needed(name) for name in ("query_id", "query", "locale", "product_id")}
            | {field: product.texts(field) for field in FIELDS}
            | verdict(line, source)
            | ({"split": "test"} if is_test else {})
        )


def _esci_key(line: Line) -> tuple[str, str]:
    return line.text("product_id"), line.text("locale")


def read_synthetic(source: SourceRecipe) -> Iterator[Row]:
    """Make the synthetic catalogue's judged pairs; nothing of it is real."""
    return (judged(row) for row in synthetic.judged_pairs(source.seed, source.queries))


READERS = {
    "judged": read_judged_folder,
    "esci_parquet": read_esci_parquet,
    "table": read_table,
    "synthetic": read_synthetic,
}


def read_sources(recipe: DataRecipe) -> list[Row]:
    """Read every source, keep the wanted locales, drop repeated pairs, and give each row its split.

    A pair is repeated if its source has the very same query with the same product before; a query that has the
    id of another one gets an id of its own.
    """
    rows: dict[tuple[str, str, str], Row] = {}
    owners: dict[str, str] = {}
    for source in recipe.sources:
        for row in READERS[source.kind](source):
            if source.locales and row["locale"] not in source.locales:
                continue
            row["dataset"] = source.name
            if owners.setdefault(row["query_id"], row["query"]) != row["query"]:
                row["query_id"] = f"{row['query_id']} {row['query']}"
            rows.setdefault((source.name, row["query"], row["product_id"]), row)
    return with_splits(list(rows.values()), recipe)


def write_rows(rows: Iterable[Row], schema: pa.Schema, path: Path) -> int:
    """Write rows as Parquet under a schema and return how many there were."""
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, compression="zstd")
    return int(table.num_rows)


def run(context: Context) -> Metrics:
    """Write pairs.parquet, pool_queries.parquet and pool_products.parquet."""
    recipe = context.recipe.data
    rows = read_sources(recipe)
    if not rows:
        raise DataError("the recipe's sources hold no pair in the wanted locales")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "test")}
    for split in ("train", "validation"):
        if not counts[split]:
            raise DataError(
                f"no query is left for {split}: change the shares of data.split, or bring more queries"
            )
    write_rows(rows, PAIRS, context.out / "pairs.parquet")
    products, queries = _pool(recipe)
    write_rows(products, POOL_PRODUCTS, context.out / "pool_products.parquet")
    write_rows(queries, POOL_QUERIES, context.out / "pool_queries.parquet")
    return {"pairs": len(rows), **counts, "pool_products": len(products), "pool_queries": len(queries)}


def _pool(recipe: DataRecipe) -> tuple[list[Row], list[Row]]:
    if recipe.pool is None:
        return [], []
    if recipe.pool.kind == "synthetic":
        return synthetic.pool(recipe.pool.seed, recipe.pool.products_count, recipe.pool.queries_count)
    products = [
        {name: line.text(name) for name in ("product_id", "locale", "source")}
        | {field: line.texts(field) for field in FIELDS}
        for line in read_lines(Path(recipe.pool.products))
        if line.needed("title", joined=True)
    ]
    queries = [
        {"query": line.needed("query"), "source": line.text("source")}
        for line in read_lines(Path(recipe.pool.queries))
    ]
    return products, queries
