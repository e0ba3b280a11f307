"""From nothing to answers: every training stage of the tiny recipe, then the service on its bundle."""

import csv
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; training cannot run")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from bundle import PairEncoder, Product, read_bundle  # noqa: E402
from bundle.verify import scores_of  # noqa: E402
from tests.service.support import serving  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.data import synthetic  # noqa: E402
from training.models.runtime import OrtSession  # noqa: E402
from training.stages import STAGES  # noqa: E402

TINY = Path(__file__).parent.parent / "training" / "recipes" / "tiny.toml"
SMALLER = (
    "data.sources=[{kind='synthetic', name='synthetic', seed=7, queries=60}]",
    "augment.max_queries=60",
)
NO_GATE = (
    "quantize.max_ndcg_drop=1",
    "quantize.min_spearman=-1",
    "quantize.min_pair_order=0",
    "quantize.max_rms=99",
    "quantize.min_list_spearman=-1",
    "quantize.max_dataset_ndcg_drop=1",
    "quantize.max_ece_rise=1",
)
SMALLER += (
    *NO_GATE,  # a student of one epoch orders nothing, so the rounding of int8 does
    "teacher.epochs=2",
    "teacher.batch_size=16",  # steps enough that its scores differ within a query, or no blend takes them
    "distil.epochs=1",
    "data.pool.products_count=200",
    "data.pool.queries_count=40",
)
QUERY = "red running shoes"
TITLES = [
    "Norvik mesh running shoes red",
    "Alderi steel frying pan black",
    "Quenta cotton sports socks red",
    "",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    root = tmp_path_factory.mktemp("run")
    assert run_stage("all", root) == 0
    return root


def run_stage(stage: str, root: Path, *overrides: str) -> int:
    """Run a stage of the smaller tiny recipe from the command line; its exit code."""
    words = [word for value in (f"run.dir={root}", *SMALLER, *overrides) for word in ("--set", value)]
    return main([stage, "--recipe", str(TINY), *words])


def test_every_stage_leaves_its_folder_and_figures(run_folder: Path) -> None:
    """The run manifest holds a key and figures for each stage; nothing half-written is left."""
    told = json.loads((run_folder / "run.json").read_text())

    assert set(told["stages"]) == set(STAGES) - {"judge", "blend", "panel"}
    assert not list(run_folder.glob(".*.part"))


def test_an_optional_stage_joins_a_finished_run(run_folder: Path, tmp_path: Path) -> None:
    """A blend section adds the blend of teacher and encoder for every labelled pair, the parts kept."""
    root = Path(shutil.copytree(run_folder, tmp_path / "run"))
    encoder = root / "teacher"  # any BERT folder is an encoder

    assert run_stage("blend", root, f"blend.encoders=[{{model='{encoder}'}}]") == 0

    blend = pq.read_table(root / "blend" / "shards" / "labels-00000.parquet")
    assert len(blend) == sum(
        pq.read_metadata(p).num_rows for p in (run_folder / "label" / "shards").iterdir()
    )
    assert {"logit", "classifier fresh", "cosine teacher", "probabilities"} <= set(blend.column_names)


def test_two_processes_train_one_student(run_folder: Path, tmp_path: Path) -> None:
    """Under torchrun the processes share the batches; one student comes out, and one line of figures."""
    root = Path(shutil.copytree(run_folder, tmp_path / "run"))
    shutil.rmtree(root / "distil")
    words = [word for value in (f"run.dir={root}", *SMALLER) for word in ("--set", value)]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "training", "distil", "--recipe", str(TINY), *words]
    before = (root / "metrics.jsonl").read_text().count("\n")

    done = subprocess.run(
        [sys.executable, *command],
        cwd=TINY.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert (root / "distil" / "model.safetensors").is_file()
    assert (root / "metrics.jsonl").read_text().count("\n") == before + 1
    assert not list(root.glob(".*.part"))
    steps = re.findall(r"(\d+)/\1 ", done.stderr.replace("it/s", " "))
    whole = json.loads((run_folder / "distil" / "stage.json").read_text())["metrics"]["groups"]
    assert str(-(-whole // 16)) in steps  # 8 groups a process and step


def published_esci(folder: Path) -> None:
    """Write synthetic judged pairs as the two Parquet files of the Shopping Queries dataset."""
    pairs = synthetic.judged_pairs(3, 40)
    queries = {name: number for number, name in enumerate(dict.fromkeys(row["query_id"] for row in pairs))}
    examples = [
        {
            "example_id": number,
            "query": row["query"],
            "query_id": queries[row["query_id"]],
            "product_id": row["product_id"],
            "product_locale": "us",
            "esci_label": row["label"],
            "small_version": 1,
            "large_version": 1,
            "split": "test" if queries[row["query_id"]] % 5 == 0 else "train",
        }
        for number, row in enumerate(pairs)
    ]
    texts = {"product_title": "title", "product_description": "description", "product_brand": "brand"}
    texts |= {"product_bullet_point": "bullets", "product_color": "color"}
    products = {
        row["product_id"]: {"product_id": row["product_id"], "product_locale": "us"}
        | {theirs: row[ours] or None for theirs, ours in texts.items()}
        for row in pairs
    }
    pq.write_table(pa.Table.from_pylist(examples), folder / "shopping_queries_dataset_examples.parquet")
    pq.write_table(
        pa.Table.from_pylist(list(products.values())), folder / "shopping_queries_dataset_products.parquet"
    )


def test_the_published_esci_files_go_through_every_stage(tmp_path: Path) -> None:
    """The full recipe, its models swapped for tiny fresh ones, ends in a bundle measured on the published test split."""
    published_esci(tmp_path)
    overrides = [
        f"data.sources=[{{kind='esci_parquet', name='esci', path='{tmp_path}', locales=['us']}}]",
        "data.split.validation=0.3",
        f"run.dir={tmp_path / 'run'}",
        *(f"{section}.model=''" for section in ("teacher", "distil")),
        *(f"{section}.epochs=1" for section in ("teacher", "distil")),
        *(f"{section}.bf16=false" for section in ("teacher", "label", "distil")),
        "teacher.lora_rank=0",
        "teacher.activation_checkpointing=false",
        "evaluate.biencoder=''",
        *NO_GATE,
    ]
    words = [word for value in overrides for word in ("--set", value)]

    assert main(["all", "--recipe", str(TINY.with_name("esci-full.toml")), *words]) == 0

    bundle = read_bundle(tmp_path / "run" / "bundle", "esci-full")
    assert {row.dataset for row in bundle.manifest.quality.rows} == {"esci validation", "esci test"}


def test_a_table_of_judgments_becomes_a_bundle(tmp_path: Path) -> None:
    """The shop's recipe, its body swapped for a tiny fresh one, needs no teacher from table to bundle, and its card says so."""
    rows = synthetic.judged_pairs(3, 40)
    with open(tmp_path / "judgments.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["query", "product_id", "title", "label"], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    overrides = [
        f"data.sources=[{{kind='table', name='shop', path='{tmp_path / 'judgments.csv'}'}}]",
        f"run.dir={tmp_path / 'run'}",
        "distil.model=''",
        "distil.fresh={hidden=32, layers=1, heads=2, vocabulary=300}",
        "evaluate.resamples=100",
        "distil.epochs=1",
        *NO_GATE,
    ]
    words = [word for value in overrides for word in ("--set", value)]

    assert main(["all", "--recipe", str(TINY.with_name("shop.toml")), *words]) == 0

    bundle = read_bundle(tmp_path / "run" / "bundle", "shop")
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"augment", "teacher", "label"}.isdisjoint(told["stages"])
    assert told["stages"]["calibrate"]["metrics"]["split"] == "validation"
    assert "human labels alone, without a teacher" in bundle.files["card.md"].decode()


def test_the_bundle_tells_where_it_comes_from(run_folder: Path) -> None:
    """The manifest names the recipe's hash and the gates that the int8 graph passed, and the card has a table."""
    bundle = read_bundle(run_folder / "bundle", "tiny")
    told = json.loads((run_folder / "run.json").read_text())

    assert bundle.manifest.provenance.recipe_sha256 == told["recipe_sha256"]
    assert bundle.manifest.gates
    assert "| BM25 |" in bundle.files["card.md"].decode()


def test_the_service_answers_with_the_scores_of_the_graph(run_folder: Path) -> None:
    """A rerank over HTTP gives, to the last digit, what the bundle's own graph and calibration give."""
    bundle = read_bundle(run_folder / "bundle", "tiny")
    manifest = bundle.manifest
    rows = PairEncoder(bundle.files[manifest.tokenizer], manifest.text).encode(
        QUERY, [Product(text=title) for title in TITLES]
    )
    session = OrtSession(bundle.files[manifest.graph(manifest.default_precision).file])
    wanted = scores_of(session, rows, manifest)
    body = json.dumps({"query": QUERY, "documents": TITLES}).encode()

    with serving(run_folder / "bundle") as process:
        request = urllib.request.Request(
            f"http://127.0.0.1:{process.port}/v1/rerank", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - our own server
            answer = json.load(response)

    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert [scores[i] for i in range(4)] == [round(float(score), 6) for score in wanted]
    assert answer["bundle"] == bundle.id
