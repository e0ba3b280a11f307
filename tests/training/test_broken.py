"""No input file, recipe, model folder or stage's folder ends in a traceback: one line, and exit code 2.

Every kind of damage goes to every stage that reads such a thing, through the command line.
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from tests.training.support import SMALL, TINY, finished, tiny_arguments
from training.__main__ import PROGRAMS, main
from training.recipe import load_recipe
from training.stages import STAGES, Run

GOOD = "query,product_id,title,grade\n" + "".join(f"q{i},{i},thing {i},3\n" for i in range(40))
FILES = {
    "empty": b"",
    "blank": b"\n \n",
    "header alone": b"query,query_id,product_id,title,grade\n",
    "no known column": b"a,b\n1,2\n",
    "not UTF-8": b"query,query_id,product_id,title,grade\nq,1,1,caf\xe9,3\n",
    "open quote": b'query,query_id,product_id,title,grade\nq,1,1,"t,3\n',
    "too many cells": b"query,query_id,product_id,title,grade\nq,1,1,t,3,4,5\n",
    "NaN": b"query,query_id,product_id,title,grade\nnan,nan,nan,nan,nan\n",
    "half an object": b'{"query": "q", "query_id"',
    "an array": b'[{"query": "q"}]',
    "numbers": b"1\n2\n",
    "nested": b'{"query": {"a": 1}, "query_id": [1], "product_id": {}, "title": {"en": "t"}, "grade": true}\n',
    "deep": b'{"query": ' + b"[" * 50_000,
    "gzip, cut": gzip.compress(GOOD.encode())[:60],
    "gzip, false": b"\x1f\x8b\x08\x00 and no more",
    "Parquet, cut": b"PAR1\x00\x00",
    "workbook": b"PK\x03\x04xl/workbook.xml",
}
RECIPES = {
    "empty": b"",
    "not TOML": b"[run\n",
    "not UTF-8": b'name = "caf\xe9"\n',
    "UTF-16": "[run]\n".encode("utf-16"),
    "deep": b"a = " + b"[" * 20_000,
    "extends itself": b'extends = "broken.toml"\n',
    "extends a number": b"extends = 1\n",
    "extends a NUL": b'extends = "a\\u0000b"\n',
    "sections that are none": b"run = 1\nstudy = 1\nreport = 1\n",
    "unknown keys": b"[run]\nnmae = 1\n[study]\nx = 1\n[report]\nx = 1\n",
}
OVERRIDES = {
    "a missing equals sign": "run.seed",
    "a section that is none": "run.seed.x=1",
    "NaN": "teacher.learning_rate=nan",
    "a misspelt column": "data.sources=[{kind='table', name='t', path='x.csv', columns={titel='name'}}]",
    "a misspelt label": "data.sources=[{kind='table', name='t', path='x.csv', label_map={good='X'}}]",
    "a grade that is worth too much": "data.sources=[{kind='table', name='t', path='x.csv', grades={good=2}}]",
    "a misspelt field": "teacher.fields=['titel']",
    "heads that do not divide": "distil.fresh={hidden=64, heads=3}",
    "more tokens than positions": "teacher.max_length=1000",
    "more tokens than a fresh student's": "text.max_length=1000",
    "no room for a product": "text.query_max_tokens=46",
    "a prompt that is no format": "judge={model='m', prompt='{query} {product}'}",
    "a path with a NUL": 'data.sources=[{kind="table", name="t", path="a\\u0000b"}]',
    "a run below a file": f"run.dir={TINY}/run",
}


def sources(root: Path, broken: bytes) -> dict[str, str]:
    """Every way in which the recipe names an input file, each with one broken file among whole ones."""
    (root / "bad").write_bytes(broken)
    (root / "good.csv").write_text(GOOD, encoding="utf-8")
    bad, good = root / "bad", root / "good.csv"
    found = {
        "table": f"data.sources=[{{kind='table', name='t', path='{bad}'}}]",
        "queries": f"data.sources=[{{kind='table', name='t', path='{good}', queries_file='{bad}', "
        "columns={query_id='product_id'}}]",
        "products": f"data.sources=[{{kind='table', name='t', path='{good}', products_file='{bad}'}}]",
    }
    layouts = {
        "judged": ("queries.jsonl.gz", "products.jsonl.gz", "judgements.csv.gz"),
        "esci_parquet": (
            "shopping_queries_dataset_examples.parquet",
            "shopping_queries_dataset_products.parquet",
        ),
    }
    for kind, names in layouts.items():
        folder = root / kind
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(broken)
        found[kind] = f"data.sources=[{{kind='{kind}', name='t', path='{folder}'}}]"
    pool = "data.pool={{kind='files', products='{}', queries='{}'}}"
    source = f"data.sources=[{{kind='table', name='t', path='{good}'}}]"
    found["pool queries"] = f"{source}\n{pool.format(good, bad)}"
    found["pool products"] = f"{source}\n{pool.format(bad, good)}"
    return found


@pytest.mark.parametrize("kind", FILES)
def test_a_broken_file_is_one_line(tmp_path: Path, kind: str, refused: Callable[..., str]) -> None:
    """Every damage to every file that a recipe can name stops the data stage with the file's name."""
    for way, overrides in sources(tmp_path, FILES[kind]).items():
        arguments = [part for override in overrides.split("\n") for part in ("--set", override)]

        line = refused("data", "--recipe", str(TINY), "--set", f"run.dir={tmp_path / 'run'}", *arguments)

        assert str(tmp_path) in line, way


@pytest.mark.parametrize("kind", FILES)
def test_broken_judgments_are_one_line(tmp_path: Path, kind: str, refused: Callable[..., str]) -> None:
    """Every damage to every file of judgements, products or queries stops the verb with the file's name."""
    (tmp_path / "bad").write_bytes(FILES[kind])
    (tmp_path / "good.csv").write_text(GOOD, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("queries.jsonl.gz", "products.jsonl.gz", "judgements.csv.gz"):
        (folder / name).write_bytes(FILES[kind])
    bad, good = str(tmp_path / "bad"), str(tmp_path / "good.csv")
    ways = (
        ["--judgments", bad],
        ["--judgments", good, "--products", bad],
        ["--judgments", good, "--queries", bad, "--column", "query_id=product_id"],
        ["--judgments", str(folder)],
    )
    for way in ways:
        assert str(tmp_path) in refused("evaluate", "--bundle", "models/tiny", *way), way


@pytest.mark.parametrize("program", [*STAGES, "all", *PROGRAMS])
def test_a_broken_recipe_is_one_line(tmp_path: Path, program: str, refused: Callable[..., str]) -> None:
    """Every damage to a recipe stops every stage and program with the recipe's name."""
    path = tmp_path / "broken.toml"
    for content in RECIPES.values():
        path.write_bytes(content)
        assert str(tmp_path) in refused(program, "--recipe", str(path))
    assert str(tmp_path) in refused(program, "--recipe", str(tmp_path))
    assert "absent" in refused(program, "--recipe", str(tmp_path / "absent"))


@pytest.mark.parametrize("kind", OVERRIDES)
def test_a_value_that_does_not_fit_is_one_line(
    tmp_path: Path, kind: str, refused: Callable[..., str]
) -> None:
    """A value that no stage could work with stops the run before its first stage."""
    refused("data", *tiny_arguments(tmp_path, OVERRIDES[kind]))


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """A recipe saved by an editor of Windows is read."""
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TINY.read_bytes())

    assert load_recipe(path) == load_recipe(TINY)


@pytest.mark.parametrize("stage", [stage for stage, (_, reads) in STAGES.items() if reads])
@pytest.mark.parametrize("content", ['{"key"', "[]", "changed"])
def test_a_broken_folder_of_a_stage_is_one_line(
    tmp_path: Path, stage: str, content: str, refused: Callable[..., str]
) -> None:
    """A stage does not begin on files that are not as an earlier one left them."""
    extra = ["judge={model='m'}", "blend={}", "panel={}"]
    reads = Run(load_recipe(TINY, [f"run.dir={tmp_path / 'run'}", *SMALL, *extra])).reads(stage)
    for broken in reads:
        for other in reads:
            finished(tmp_path, other, *extra, **({"a.parquet": "0"} if other == broken else {}))
        if content != "changed":
            (tmp_path / "run" / broken / "stage.json").write_text(content, encoding="utf-8")
        if stage == "judge":
            continue  # its model is looked at first

        assert f"/run/{broken}/" in refused(stage, *tiny_arguments(tmp_path, *extra))


def test_a_tracker_that_is_not_known_is_one_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    """A misspelt tracker stops the training stage before its first step."""
    arguments = tiny_arguments(tmp_path, "teacher.report_to=['mlfolw']")
    assert main(["data", *arguments]) == 0

    assert "report_to mlfolw" in refused("teacher", *arguments)
