"""The zero-shot judge on a tiny decoder made here, against a plain forward pass."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")
pa = pytest.importorskip("pyarrow", reason="the training environment is not installed")

from tests.training import support  # noqa: E402
from training.data.augment import UNLABELLED  # noqa: E402
from training.data.sources import FIELDS  # noqa: E402
from training.sections.teacher import JudgeRecipe  # noqa: E402
from training.teacher.judge import YesNoJudge, frame, to_judge  # noqa: E402

TITLES = ["red running shoes", "a very much longer title of blue shoes for running and walking", "hat"]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> YesNoJudge:
    """A judge over a random two-layer decoder with a chat template."""
    folder = tmp_path_factory.mktemp("decoder")
    support.make_decoder(folder, TITLES)
    made = YesNoJudge(JudgeRecipe(model="decoder", batch=2), str(folder))
    made.model.float()
    return made


def plain(judge: YesNoJudge, query: str, title: str) -> float:
    """The same log-odds without a cache or padding: one forward over the whole text."""
    before, after = frame(judge.tokenizer, judge.recipe.prompt, query)
    ids = before + judge.tokenizer.encode(" " + title, add_special_tokens=False) + after
    with torch.inference_mode():
        logits = judge.model(torch.tensor([ids])).logits[0, -1]
    yes, no = (torch.logsumexp(logits[pieces], dim=0) for pieces in judge.answers)
    return float(yes - no)


def test_shared_prefix_gives_the_plain_log_odds(judge: YesNoJudge) -> None:
    """The cached query prefix, the batches by length and their padding change no score and no order."""
    found = judge.log_odds("running shoes", TITLES)

    np.testing.assert_allclose(found, [plain(judge, "running shoes", title) for title in TITLES], atol=1e-4)


def test_a_score_does_not_depend_on_its_neighbours(judge: YesNoJudge) -> None:
    """A product alone scores as in a batch."""
    together = judge.log_odds("shoes", TITLES)

    np.testing.assert_allclose(judge.log_odds("shoes", TITLES[2:]), together[2:], atol=1e-4)


def test_tables_keep_their_order(judge: YesNoJudge) -> None:
    """Every row of a table gets its own score, whatever the queries beside it."""
    rows = [{"query": q, "title": t} for q in ("shoes", "hat") for t in TITLES]

    found = judge(pa.Table.from_pylist(rows))["log_odds"].to_pylist()

    wanted = [plain(judge, row["query"], row["title"]) for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_judged_pairs_hold_no_held_out_query() -> None:
    """Labelled train lists come with their targets, unlabelled queries without, held-out ones not at all."""
    texts = dict.fromkeys(FIELDS, "x")
    labelled = [
        {
            "dataset": "d",
            "query_id": q,
            "query": q,
            "product_id": str(i),
            "grade": i % 4,
            "target": 0.5,
            "split": s,
        }
        | texts
        for q, s in (("seen", "train"), ("kept", "validation"))
        for i in range(12)
    ]
    rows = [
        {"query_id": q, "query": q, "query_source": "s", "product_id": str(i), "rank": i} | texts
        for q in ("new one", "Seen", "third")
        for i in range(5)
    ]
    recipe = JudgeRecipe(model="m", queries=1, train_lists=5)

    found = to_judge(labelled, pa.Table.from_pylist(rows, schema=UNLABELLED), recipe).to_pylist()

    assert [row["query"] for row in found] == ["seen"] * 12 + ["new one"] * 5
    assert [row["target"] for row in found] == [0.5] * 12 + [None] * 5
