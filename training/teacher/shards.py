"""Score pairs shard by shard: atomic, resumable, and split over ranks without a coordinator.

Knows shards, files and ranks; does not know the model.
Invariant: a shard file is whole or absent, and every pair lies in exactly one shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from training.errors import Unfinished
from training.teacher.ray_driver import score_missing

Scorer = Callable[[pa.Table], pa.Table]


def ranks() -> tuple[int, int]:
    """Return (RANK, WORLD_SIZE) as torchrun, SLURM wrappers and indexed jobs set them; (0, 1) alone."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world:
        raise ValueError(f"RANK={rank} must lie in [0, WORLD_SIZE={world})")
    return rank, world


def by_query(pairs: pa.Table, shard_queries: int) -> list[pa.Table]:
    """Cut a table sorted by query into shards of whole queries.

    >>> table = pa.table({"query_id": ["a", "a", "b", "c"]})
    >>> [len(shard) for shard in by_query(table, 2)]
    [3, 1]
    """
    ids = pairs.column("query_id").to_pylist()
    starts = [i for i, query in enumerate(ids) if i == 0 or query != ids[i - 1]]
    cuts = [*starts[::shard_queries], len(ids)]
    return [pairs.slice(a, b - a) for a, b in pairwise(cuts)]


def score_shards(
    shards: Sequence[pa.Table], scorer: Callable[[], Scorer], folder: Path, name: str, ray: int = 0
) -> list[Path]:
    """Score this rank's missing shards; return all shard files, or raise Unfinished while others work.

    `scorer` is called once, and only if there is something to score; with `ray` it is called in as many actors.
    """
    rank, world = ranks()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{i:05d}.parquet" for i in range(len(shards))]
    mine = [i for i in range(rank, len(shards), world) if not paths[i].is_file()]
    if mine and ray:
        score_missing({paths[i]: shards[i] for i in mine}, scorer, _write, ray)
    elif mine:
        score = scorer()
        for i in tqdm(mine, desc=f"{name} rank {rank}", unit="shard", mininterval=5):
            _write(score(shards[i]), paths[i])
    missing = sum(not path.is_file() for path in paths)
    if missing:
        raise Unfinished(
            f"{name}: rank {rank} of {world} is done; {missing} of {len(paths)} shards are left to other ranks"
        )
    return paths


def _write(table: pa.Table, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, path)
