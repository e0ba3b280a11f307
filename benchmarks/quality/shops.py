"""Writes judged lists that a recipe held out, as the files that shops would bring to `tune`.

    python benchmarks/quality/shops.py --pairs runs/volume/data/pairs.parquet --out shops
    for shop in wands haystack_icecat chorus_icecat esci all; do
      python -m training tune --from models/default --judgments shops/$shop.parquet --name default-$shop --out tuned
    done

Each data set's validation and test lists are one shop, all of them together another; with --shuffled N there are N more of
each whose grades lie on other products of the same query, so that there is nothing to learn.
Knows the pairs that the data stage writes; does not know models.
Invariant: a shop has no list that the recipe's split trained on.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

HELD_OUT = ("validation", "test")
SHORTEST = 5  # judged products of a list
ALL = "all"


def shops(pairs: pa.Table) -> dict[str, pa.Table]:
    """Return the held-out rows of each data set, and of all, without lists that are too short."""
    counts = pairs.group_by(["dataset", "query_id"]).aggregate([("product_id", "count")])
    long = counts.filter(pc.greater_equal(counts["product_id_count"], SHORTEST))
    kept = pairs.filter(pc.is_in(pairs["split"], pa.array(HELD_OUT))).join(
        long.drop(["product_id_count"]), ["dataset", "query_id"], join_type="inner"
    )
    kept = kept.sort_by([("dataset", "ascending"), ("query_id", "ascending"), ("product_id", "ascending")])
    own = {
        name: kept.filter(pc.equal(kept["dataset"], name))
        for name in sorted(set(kept["dataset"].to_pylist()))
    }
    unique = pc.binary_join_element_wise(kept["dataset"], kept["query_id"], " ")
    return own | {ALL: kept.set_column(kept.schema.get_field_index("query_id"), "query_id", unique)}


def shuffled(shop: pa.Table, seed: int) -> pa.Table:
    """Return the shop with the grades and labels of each query on other products of that query."""
    draws = np.random.default_rng(seed)
    order = np.arange(len(shop))
    queries = np.array(shop["query_id"].to_pylist())
    for query in np.unique(queries):
        (places,) = np.nonzero(queries == query)
        order[places] = draws.permutation(places)
    for column in ("label", "grade"):
        shop = shop.set_column(
            shop.schema.get_field_index(column), column, shop[column].take(pa.array(order))
        )
    return shop


def main() -> None:
    """Write every shop as Parquet and print what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.parquet of a finished data stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shuffled", type=int, default=0, help="shops without anything to learn, of each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, shop in shops(pq.read_table(options.pairs)).items():
        files = {name: shop} | {
            f"{name}-shuffled-{seed}": shuffled(shop, seed) for seed in range(options.shuffled)
        }
        for file, table in files.items():
            pq.write_table(
                table.drop(["split", "dataset", "target", "gain"]), options.out / f"{file}.parquet"
            )
        print(f"{name}: {len(set(shop['query_id'].to_pylist()))} lists, {len(shop)} pairs")


if __name__ == "__main__":
    main()
