"""Labelling: which pairs, what is kept of a score, and that a killed run resumes."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the training environment is not installed")

from bundle.manifest import Calibration  # noqa: E402
from bundle.score import class_probabilities  # noqa: E402
from training.data import synthetic  # noqa: E402
from training.data.augment import UNLABELLED  # noqa: E402
from training.data.sources import PAIRS, judged  # noqa: E402
from training.sections.models import FreshRecipe  # noqa: E402
from training.sections.teacher import LabelRecipe, TeacherRecipe  # noqa: E402
from training.teacher.label import Labeller, to_label  # noqa: E402
from training.teacher.shards import by_query, score_shards  # noqa: E402
from training.teacher.teacher import load_base  # noqa: E402

CALIBRATION = Calibration(method="ordinal", slope=1.5, thresholds=(-1.0, 0.0, 1.0))


def labelled() -> pa.Table:
    """Judged pairs of a train and a validation query."""
    rows = synthetic.judged_pairs(1, 2)
    first = rows[0]["query_id"]
    told = [
        judged(row) | {"dataset": "s", "split": "train" if row["query_id"] == first else "validation"}
        for row in rows
    ]
    return pa.Table.from_pylist(told, schema=PAIRS)


def unlabelled(queries: int = 6) -> pa.Table:
    """Pairs nobody judged, grouped by query."""
    products, wishes = synthetic.pool(2, 30, queries)
    rows = [
        product | {"query_id": f"u{i}", "query": wish["query"], "query_source": "s", "rank": rank}
        for i, wish in enumerate(wishes)
        for rank, product in enumerate(products[5 * i : 5 * i + 5])
    ]
    return pa.Table.from_pylist(rows, schema=UNLABELLED)


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    """A random tiny teacher."""
    torch.manual_seed(0)
    shape = FreshRecipe(hidden=32, layers=1, heads=2, vocabulary=300)
    texts = [row["title"] for row in unlabelled().to_pylist()]
    teacher = load_base(TeacherRecipe(fields=("title",), fresh=shape, max_length=32), "", texts)
    return Labeller(teacher, CALIBRATION, LabelRecipe())


def test_train_products_are_labelled_but_not_held_out_ones() -> None:
    """The train query's products come first without their human label; the validation query's do not come."""
    found = to_label(labelled(), unlabelled())
    rows = labelled().to_pylist()
    queries = {
        split: {row["query"] for row in rows if row["split"] == split} for split in ("train", "validation")
    }

    assert found.schema.equals(UNLABELLED)
    assert set(found["query"].to_pylist()) & queries["validation"] == set()
    assert found["query"][0].as_py() in queries["train"]
    assert len(found) == sum(row["split"] == "train" for row in rows) + len(unlabelled())


def test_only_the_first_queries_are_taken() -> None:
    """max_queries cuts the unlabelled queries, not the judged ones, and keeps whole queries."""
    found = to_label(labelled(), unlabelled(), max_queries=2)

    assert [q for q in dict.fromkeys(found["query_id"].to_pylist()) if q.startswith("u")] == ["u0", "u1"]


def test_raw_logits_and_class_probabilities_are_kept(labeller: Labeller) -> None:
    """Each pair has its logit and four probabilities that follow from it by the teacher's calibration."""
    found = labeller(unlabelled())
    logits = np.array(found["logit"].to_pylist())

    wanted = class_probabilities(logits, CALIBRATION)
    np.testing.assert_allclose(np.array(found["probabilities"].to_pylist()), wanted, atol=1e-6)
    assert found.select(UNLABELLED.names).equals(unlabelled())


def test_a_killed_labelling_run_resumes_with_the_same_scores(tmp_path: Path, labeller: Labeller) -> None:
    """Killed in the second shard and started again, a run ends with the table of an uninterrupted one."""
    shards = by_query(unlabelled(), 2)
    whole = labeller(unlabelled())
    calls = []

    def killed(pairs: pa.Table) -> pa.Table:
        calls.append(len(pairs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return labeller(pairs)

    with pytest.raises(KeyboardInterrupt):
        score_shards(shards, lambda: killed, tmp_path, "labels")
    paths = score_shards(shards, lambda: labeller, tmp_path, "labels")
    found = pa.concat_tables([pq.read_table(path) for path in paths])

    assert found["product_id"].to_pylist() == whole["product_id"].to_pylist()
    np.testing.assert_allclose(found["logit"].to_pylist(), whole["logit"].to_pylist(), atol=1e-5)
