"""The synthetic shop."""

from training.data import synthetic
from training.data.synthetic import Item


def test_same_seed_same_catalogue() -> None:
    """A seed fixes every product and label, and another seed gives others."""
    assert synthetic.judged_pairs(3, 20) == synthetic.judged_pairs(3, 20)
    assert synthetic.judged_pairs(3, 20) != synthetic.judged_pairs(4, 20)


def test_labels_follow_the_rule() -> None:
    """Exact needs every attribute asked for, substitutes share the kind, complements are listed."""
    wish = Item("running shoes", color="red")

    assert synthetic.judge(wish, Item("running shoes", "mesh", "red", "Norvik")) == "E"
    assert synthetic.judge(wish, Item("running shoes", "mesh", "blue", "Norvik")) == "S"
    assert synthetic.judge(wish, Item("shoe laces", "flat", "red", "Norvik")) == "C"
    assert synthetic.judge(wish, Item("frying pan", "steel", "red", "Norvik")) == "I"


def test_all_four_labels_come_out() -> None:
    """A list holds several classes, so that it can be ranked."""
    assert {row["label"] for row in synthetic.judged_pairs(1, 30)} == {"E", "S", "C", "I"}
