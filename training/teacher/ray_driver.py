"""Score shards on a Ray cluster: the same callable and the same files as the plain driver.

Knows Ray Data's actor pools; does not know the model.
Invariant: a worker that dies loses the shard it was scoring, nothing else; a second run scores what is missing.
Needs the `ray` extra, and a folder that every node sees.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import StageError

Score = Callable[[pa.Table], pa.Table]


def score_missing(
    wanted: Mapping[Path, pa.Table],
    scorer: Callable[[], Score],
    write: Callable[[pa.Table, Path], None],
    actors: int,
) -> None:
    """Score every table and write it to its path, in a pool of `actors`, each of which calls `scorer` once.

    A GPU per actor is asked for if the cluster has any. RAY_ADDRESS names the cluster; without it Ray runs here.
    """
    try:
        import ray  # noqa: PLC0415 - the ray extra
    except ImportError as error:
        raise StageError("--ray needs Ray: install the `ray` extra") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    asked = next(iter(wanted)).parent / ".asked"
    asked.mkdir(exist_ok=True)
    for path, table in wanted.items():
        pq.write_table(table, asked / path.name)

    class Worker:
        def __init__(self) -> None:
            self.score = scorer()

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            for name in batch["shard"].tolist():
                write(self.score(pq.read_table(asked / name)), asked.parent / name)
            return {"shard": batch["shard"]}

    pool = ray.data.ActorPoolStrategy(size=min(actors, len(wanted)))
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    rows = ray.data.from_items([{"shard": path.name} for path in wanted], override_num_blocks=len(wanted))
    rows.map_batches(Worker, batch_size=1, compute=pool, num_gpus=gpus).materialize()
    shutil.rmtree(asked)
