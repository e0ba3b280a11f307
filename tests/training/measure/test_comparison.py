"""Systems side by side: the right figures, paired, on a page that is safe to open."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from bundle.text import Product
from training.data.lists import JudgedList
from training.measure import metrics
from training.measure.comparison import METRICS, Comparison
from training.measure.metrics import Interval
from training.measure.page import html, verdict

HOSTILE = '<script>alert("x")</script> & | `co`'


def judged(query: str, *grades: int) -> JudgedList:
    """A graded list; its products are named after their places."""
    return JudgedList(
        dataset="d",
        query_id=query,
        query=query,
        product_ids=tuple(f"p{n}" for n in range(len(grades))),
        products=tuple(Product(title=f"{query} {n}") for n in range(len(grades))),
        labels=(None,) * len(grades),
        grades=grades,
        gains=np.array(grades) / 3,
    )


LISTS = [judged("hat", 0, 3, 1), judged(HOSTILE, 2, 0, 1, 3), judged("shoe", 3, 0)]
FIRST = [np.array([3.0, 2.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0]), np.array([2.0, 1.0])]
PERFECT = [one.gains for one in LISTS]
WORST = [-one.gains for one in LISTS]
BOTH = Comparison(LISTS, {"base": FIRST, "tuned": PERFECT}, resamples=200)


def test_figures_are_those_of_the_metrics() -> None:
    """Each figure is the mean of its metric over the lists, pair accuracy pooled over their pairs."""
    found = BOTH.figures("base")

    assert tuple(found) == METRICS
    pairs = [metrics.pair_accuracy(score, one.gains) for one, score in zip(LISTS, FIRST, strict=True)]
    assert found["pair accuracy"].value == pytest.approx(sum(p[0] for p in pairs) / sum(p[1] for p in pairs))
    at_five = [metrics.ndcg(score, one.gains, 5) for one, score in zip(LISTS, FIRST, strict=True)]
    assert found["NDCG@5"].value == pytest.approx(np.mean(at_five))
    assert found["MRR"].value == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert [interval.value for interval in BOTH.figures("tuned").values()] == pytest.approx([1, 1, 1, 1])


def test_a_difference_is_paired() -> None:
    """The difference has the value of the figures' difference, and the other way round its negative."""
    ahead = BOTH.paired("tuned", "base")

    assert ahead.value == pytest.approx(1 - BOTH.figures("base")["NDCG@10"].value)
    assert BOTH.paired("base", "tuned").value == pytest.approx(-ahead.value)
    assert BOTH.paired("base", "base") == Interval(0, 0, 0, 3)


def test_changes_are_sorted_by_what_a_query_won() -> None:
    """Queries whose figure changed come best gain first, with the rankings before and after."""
    hat, other = BOTH.changes("tuned", "base")

    assert (hat.query, other.query) == ("hat", HOSTILE)
    assert hat.gain > other.gain > 0
    assert [place.title for place in hat.first] == ["hat 0", "hat 1", "hat 2"]
    assert [place.grade for place in hat.then] == [3, 1, 0]


def test_markdown_has_a_line_a_system() -> None:
    """One table has the figures of all systems, the other the differences from the first; a pipe breaks neither."""
    more = {"base": {"score error": Interval(0.1, 0.05, 0.2, 3)}}
    text = Comparison(LISTS, {"base": FIRST, "a|b": PERFECT}, more, resamples=50).markdown()

    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {re.sub(r"\\\|", "", row).count("|") for row in rows[:4]} == {7}
    assert rows[0] == "| system | NDCG@10 | NDCG@5 | MRR | pair accuracy | score error |"
    assert rows[2].endswith("| 0.1000 [0.0500, 0.2000] |")
    assert rows[3].startswith("| a\\|b | 1.0000 [1.0000, 1.0000] |")
    assert rows[-1].startswith("| a\\|b | +")


class Markup(HTMLParser):
    """What a browser would find in a page: its elements, their attributes and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data


def test_the_page_stands_alone_and_escapes_its_texts() -> None:
    """No text becomes markup, nothing is loaded from elsewhere, and the queries that won are told."""
    page = Markup()
    page.feed(html(Comparison(LISTS, {HOSTILE: WORST, "new <b>": PERFECT}, resamples=50), HOSTILE, [HOSTILE]))

    assert {"script", "link", "img", "iframe", "b"}.isdisjoint(page.elements)
    assert page.attributes <= {"lang", "charset", "class"}
    assert page.text.count(HOSTILE) >= 5
    assert "Queries that won most" in page.text
    assert "Queries that lost most" not in page.text
    assert "3 queries won, 0 lost, 0 have the same NDCG@10." in page.text


@pytest.mark.parametrize(
    ("system", "other", "told"),
    [
        (PERFECT, WORST, "is better than"),
        (WORST, PERFECT, "is worse than"),
        (WORST, WORST, "cannot be told from"),
    ],
)
def test_the_verdict_follows_the_interval(
    system: list[np.ndarray], other: list[np.ndarray], told: str
) -> None:
    """An interval above 0 is better, below it worse, and around it nothing."""
    both = Comparison(LISTS, {"a": other, "b": system}, resamples=200)

    assert verdict(both, "b", "a").startswith(f"b {told} a on these 3 queries: NDCG@10 ")


def test_one_system_alone_has_no_differences() -> None:
    """With one system there is a table of figures, and nothing to compare."""
    alone = Comparison(LISTS, {"base": FIRST}, resamples=50)

    assert "paired" not in alone.markdown()
    assert "won" not in html(alone, "t")
