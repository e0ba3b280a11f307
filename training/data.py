"""Read judged lists and unlabelled pools from four kinds of source into one Parquet schema.

Knows file formats and labels; does not know models.
Invariant: all pairs of one normalised query, over all sources, fall into the same split.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from training import synthetic
from training.sections import DataRecipe, SourceRecipe
from training.splits import normalize_query, with_splits

if TYPE_CHECKING:
    from training.stages import Context, Metrics

FIELDS = ("title", "brand", "color", "category", "bullets", "description")
TARGETS = {
    "E": 1.0,
    "S": 0.5,
    "C": 0.0,
    "I": 0.0,
}  # soft targets: the paper's three grades on ESCI's four labels
GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}  # evaluation gains of the ESCI task
GRADES = {"E": 3, "S": 2, "C": 1, "I": 0}
GRADE_TARGETS = (0.0, 0.0, 0.5, 1.0)

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

Row = dict[str, Any]


class DataError(Exception):
    """A source cannot be read; the message names the file, the row and what was expected."""


def judged(row: Row) -> Row:
    """Fill label, grade, target and gain of a row that has `label` (E/S/C/I) or `grade` (0..3)."""
    label = row.get("label") or None
    if label is not None:
        if label not in GRADES:
            raise DataError(f"label {label!r} of query {row['query_id']}: expected one of {'/'.join(GRADES)}")
        return row | {"label": label, "grade": GRADES[label], "target": TARGETS[label], "gain": GAINS[label]}
    grade = int(row["grade"])
    if not 0 <= grade <= 3:
        raise DataError(f"grade {grade} of query {row['query_id']}: expected 0 to 3")
    return row | {"label": None, "grade": grade, "target": GRADE_TARGETS[grade], "gain": grade / 3}


def read_judged_folder(source: SourceRecipe) -> Iterator[Row]:
    """Read queries.jsonl.gz, products.jsonl.gz and judgements.csv.gz of one folder."""
    folder = Path(source.path)
    queries = {q["query_id"]: q for q in read_jsonl(folder / "queries.jsonl.gz")}
    products = {p["product_id"]: p for p in read_jsonl(folder / "products.jsonl.gz")}
    with _open(folder / "judgements.csv.gz") as file:
        for line in csv.DictReader(file):
            query, product = queries.get(line["query_id"]), products.get(line["product_id"])
            if query is None or product is None:
                raise DataError(
                    f"{folder}: a judgement names query {line['query_id']} and product {line['product_id']}, "
                    "and one of them is in no file of the folder"
                )
            texts = {field: product.get(field) or "" for field in FIELDS}
            yield judged(
                {"query_id": line["query_id"], "query": query["query"], "locale": query["locale"]}
                | {"product_id": line["product_id"], "label": line["label"], "grade": line["grade"]}
                | texts
            )


def read_esci_parquet(source: SourceRecipe) -> Iterator[Row]:
    """Read the ESCI dataset as published: one Parquet file of examples, one of products.

    The published test split becomes `test`; with `large_version` rows whose query is tested in the small
    version are dropped from training, since they answer its tests.
    """
    folder = Path(source.path)
    examples = _parquet(folder / "shopping_queries_dataset_examples.parquet")
    products = _parquet(folder / "shopping_queries_dataset_products.parquet")
    found = {(p["product_id"], p["product_locale"]): p for p in products}
    columns = {"title": "product_title", "brand": "product_brand", "color": "product_color"}
    columns |= {"bullets": "product_bullet_point", "description": "product_description"}
    version = "large_version" if source.large_version else "small_version"
    rows = [row for row in examples if row[version] == 1]
    tested = {row["query_id"] for row in examples if row["small_version"] == 1 and row["split"] == "test"}
    for row in rows:
        if row["split"] == "train" and row["query_id"] in tested:
            continue
        product = found.get((row["product_id"], row["product_locale"]))
        if product is None:
            raise DataError(
                f"{folder}: product {row['product_id']} ({row['product_locale']}) is not in the products file"
            )
        texts = {field: product.get(column) or "" for field, column in columns.items()} | {"category": ""}
        out = judged(
            {"query_id": str(row["query_id"]), "query": row["query"], "locale": row["product_locale"]}
            | {"product_id": row["product_id"], "label": row["esci_label"]}
            | texts
        )
        if row["split"] == "test":
            out["split"] = "test"
        yield out


def read_table(source: SourceRecipe) -> Iterator[Row]:
    """Read a CSV or JSONL file (plain or .gz) whose columns `source.columns` maps onto ours."""
    path = Path(source.path)
    lines = read_jsonl(path) if ".jsonl" in path.suffixes else _csv(path)
    columns = {
        ours: source.columns.get(ours, ours) for ours in ("query", "product_id", "label", "grade", *FIELDS)
    }
    for number, line in enumerate(lines, start=1):
        missing = [
            theirs for ours, theirs in columns.items() if ours in ("query", "title") and not line.get(theirs)
        ]
        if missing:
            raise DataError(
                f"{path} row {number}: no value in column {missing[0]!r}; map columns by [data.sources.columns]"
            )
        row = {ours: _text(line.get(theirs)) for ours, theirs in columns.items()}
        if not row["label"] and not row["grade"]:
            raise DataError(f"{path} row {number}: needs a label (E/S/C/I) or a grade (0..3)")
        row["label"] = source.label_map.get(row["label"], row["label"])
        row["query_id"] = _text(line.get(source.columns.get("query_id", "query_id"))) or normalize_query(
            row["query"]
        )
        row["product_id"] = row["product_id"] or hashlib.sha256(row["title"].encode()).hexdigest()[:16]
        row["locale"] = _text(line.get("locale")) or (source.locales[0] if source.locales else "us")
        yield judged(row)


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
    """Read every source, keep the wanted locales, drop repeated pairs, and give each row its split."""
    rows: dict[tuple[str, str, str], Row] = {}
    for source in recipe.sources:
        for row in READERS[source.kind](source):
            if source.locales and row["locale"] not in source.locales:
                continue
            row["dataset"] = source.name
            rows.setdefault((source.name, normalize_query(row["query"]), row["product_id"]), row)
    return with_splits(list(rows.values()), recipe)


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON-lines file, plain or .gz; DataError names a bad line."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path} line {number}: expected an object")
            yield row


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
    write_rows(rows, PAIRS, context.out / "pairs.parquet")
    products, queries = _pool(recipe)
    write_rows(products, POOL_PRODUCTS, context.out / "pool_products.parquet")
    write_rows(queries, POOL_QUERIES, context.out / "pool_queries.parquet")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "test")}
    return {"pairs": len(rows), **counts, "pool_products": len(products), "pool_queries": len(queries)}


def _pool(recipe: DataRecipe) -> tuple[list[Row], list[Row]]:
    if recipe.pool is None:
        return [], []
    if recipe.pool.kind == "synthetic":
        return synthetic.pool(recipe.pool.seed, recipe.pool.products_count, recipe.pool.queries_count)
    products = [
        {field: p.get(field) or "" for field in ("product_id", "locale", "source", *FIELDS)}
        for p in read_jsonl(Path(recipe.pool.products))
    ]
    queries = [
        {"query": q["query"], "source": q.get("source") or ""} for q in read_jsonl(Path(recipe.pool.queries))
    ]
    return products, queries


def _open(path: Path) -> IO[str]:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return open(path, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the recipe's path"
        ) from error


def _csv(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> list[Row]:
    if not path.is_file():
        raise DataError(f"{path}: not there; the folder must hold the published examples and products files")
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(str(item) for item in value)
    return str(value).strip()
