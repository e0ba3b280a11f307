"""Sharded scoring: resumption, ranks and atomic files."""

import sys
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from training.errors import StageError, Unfinished  # noqa: E402
from training.teacher.shards import by_query, ranks, score_shards  # noqa: E402

PAIRS = pa.table({"query_id": [f"q{i // 3}" for i in range(30)], "n": list(range(30))})


class Doubler:
    """Scores a pair with twice its number; dies at the shard that holds `poison`."""

    def __init__(self, poison: int = -1) -> None:
        self.poison, self.seen = poison, 0

    def __call__(self, pairs: pa.Table) -> pa.Table:
        """Score one shard."""
        numbers = pairs["n"].to_pylist()
        if self.poison in numbers:
            raise KeyboardInterrupt
        self.seen += len(numbers)
        return pairs.append_column("score", pa.array([2 * n for n in numbers]))


def read(paths: list[Path]) -> dict[str, list[int]]:
    """All shard files as one table."""
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pydict()


def test_a_killed_run_resumes_with_nothing_lost_or_doubled(tmp_path: Path) -> None:
    """After a kill in the middle only the missing shards are scored, and every pair comes out once."""
    shards = by_query(PAIRS, 2)
    with pytest.raises(KeyboardInterrupt):
        score_shards(shards, lambda: Doubler(poison=20), tmp_path, "x")
    done = len(list(tmp_path.glob("x-*.parquet")))
    second = Doubler()

    found = read(score_shards(shards, lambda: second, tmp_path, "x"))

    assert 0 < done < len(shards)
    assert second.seen == 30 - done * 6
    assert found["n"] == list(range(30))
    assert found["score"] == [2 * n for n in range(30)]
    assert not list(tmp_path.glob(".*part"))


def test_ranks_share_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank says that work is left, the last one returns every shard, none scored twice."""
    shards = by_query(PAIRS, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    first, second = Doubler(), Doubler()
    with pytest.raises(Unfinished, match="2 of 5 shards"):
        score_shards(shards, lambda: first, tmp_path, "x")
    monkeypatch.setenv("RANK", "1")

    paths = score_shards(shards, lambda: second, tmp_path, "x")

    assert (first.seen, second.seen) == (18, 12)
    assert read(paths)["n"] == list(range(30))


def test_nothing_is_loaded_when_nothing_is_missing(tmp_path: Path) -> None:
    """A finished run does not load the model again."""
    shards = by_query(PAIRS, 4)
    paths = score_shards(shards, Doubler, tmp_path, "x")

    def never() -> Doubler:
        raise AssertionError("loaded for nothing")

    assert score_shards(shards, never, tmp_path, "x") == paths


def test_shards_never_split_a_query() -> None:
    """Every query lies in exactly one shard."""
    owners = [set(shard["query_id"].to_pylist()) for shard in by_query(PAIRS, 3)]

    assert sum(map(len, owners)) == len(set.union(*owners)) == 10


def test_wrong_rank_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank outside the world size names both."""
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(ValueError, match="RANK=2"):
        ranks()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_ray_writes_the_files_of_the_plain_driver(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A pool of actors on a real local Ray scores what is missing, and leaves the same shards."""
    ray = pytest.importorskip("ray", reason="the ray extra is not installed")
    request.addfinalizer(ray.shutdown)
    shards = by_query(PAIRS, 2)
    plain = read(score_shards(shards, Doubler, tmp_path / "plain", "x"))
    score_shards(shards, Doubler, tmp_path / "ray", "x")
    (tmp_path / "ray" / "x-00003.parquet").unlink()
    (tmp_path / "ray" / "x-00001.parquet").unlink()

    assert read(score_shards(shards, Doubler, tmp_path / "ray", "x", ray=1)) == plain
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == [
        f"x-{i:05d}.parquet" for i in range(5)
    ]


def test_ray_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra one line says what to install, and nothing is scored."""
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(StageError, match="`ray` extra"):
        score_shards(by_query(PAIRS, 2), Doubler, tmp_path, "x", ray=1)
