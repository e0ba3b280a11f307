"""A shop's lists become lessons: every graded product once, with others of the shop that nobody graded."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from tests.training.tune.shop import judged_file
from training.data.judgments import read_judgments
from training.tune.base import open_bundle, student_of
from training.tune.lessons import MOST, OTHERS, prepare
from training.tune.top import Top


def test_a_long_list_is_dealt(tiny: Path, tmp_path: Path) -> None:
    """A list that is longer than a lesson makes several, and no graded product is left out or seen twice."""
    student = student_of(open_bundle(tiny))
    (judged,) = read_judgments(judged_file(tmp_path / "j.csv", queries=1))
    long = judged.__class__(
        **{name: getattr(judged, name) for name in ("dataset", "query_id", "query")},
        product_ids=judged.product_ids * 4,
        products=judged.products * 4,
        labels=judged.labels * 4,
        grades=judged.grades * 4,
        gains=np.arange(32) / 32,
    )
    (material,) = prepare(student, Top(student, 1).eval(), [long], judged.products, seed=0)

    lessons = list(material.lessons(np.random.default_rng(0)))

    graded = np.concatenate([lesson.gains[~np.isnan(lesson.gains)] for lesson in lessons])
    assert sorted(graded.tolist()) == pytest.approx((np.arange(32) / 32).tolist())
    assert all(np.isnan(lesson.gains).sum() == OTHERS for lesson in lessons)
    assert max(len(lesson.states) for lesson in lessons) <= MOST + OTHERS
