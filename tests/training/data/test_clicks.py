"""Clicks as soft judgements: over what a position earns, smoothed, and refused where they cannot be counted."""

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.data.clicks import read_clicks
from training.errors import DataError

HEADER = "query,product_id,title,impressions,clicks,position"


def written(path: Path, *lines: str) -> Path:
    """Write lines and return their file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_position_is_not_the_products_merit(tmp_path: Path) -> None:
    """Equal shares of clicks count for more at a place that earns few."""
    rows = [f"q{n},{n}-{p},t {n} {p},1000,{200 // p},{p}" for n in range(6) for p in (1, 2, 4)]
    path = written(tmp_path / "c.csv", HEADER, *rows, "hat,a,Red hat,1000,100,1", "hat,b,Blue hat,1000,100,4")

    hat = next(judged for judged in read_clicks(path) if judged.query == "hat")

    assert hat.gains[0] < 0.5 < hat.gains[1]


def test_few_impressions_say_little(tmp_path: Path) -> None:
    """A product that hardly anybody saw stays near the middle, whatever came of it."""
    path = written(
        tmp_path / "c.csv",
        HEADER,
        "hat,a,A,2,0,1",
        "hat,b,B,2000,20,1",
        "hat,c,C,2000,400,1",
        "hat,d,D,0,0,1",
    )

    (hat,) = read_clicks(path)

    assert hat.product_ids == ("a", "b", "c")  # nobody saw d
    assert abs(hat.gains[0] - 0.5) < 0.1
    assert hat.gains[1] < 0.2
    assert hat.gains[2] > 0.6


def test_days_add_up(tmp_path: Path) -> None:
    """Several rows of one query and product are one product with all their clicks."""
    apart = written(tmp_path / "a.csv", HEADER, "hat,a,A,100,9,1", "hat,a,A,300,11,1", "hat,b,B,400,4,1")
    joined = written(tmp_path / "j.csv", HEADER, "hat,a,A,400,20,1", "hat,b,B,400,4,1")

    assert read_clicks(apart)[0].gains.tolist() == pytest.approx(read_clicks(joined)[0].gains.tolist())


def test_without_positions_all_are_alike(tmp_path: Path) -> None:
    """A file that does not know where products were shown is read too."""
    path = written(tmp_path / "c.csv", "query,title,impressions,clicks", "hat,A,500,90", "hat,B,500,10")

    (hat,) = read_clicks(path)

    assert hat.gains[0] > 0.5 > hat.gains[1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("hat,a,A,10,11,1", "11 clicks in 10 impressions"),
        ("hat,a,A,10,-1,1", "'-1' is no count"),
        ("hat,a,A,many,1,1", "'many' is no count"),
        ("hat,a,A,10,,1", "no value"),
    ],
)
def test_what_cannot_be_counted_is_one_line(row: str, said: str, tmp_path: Path) -> None:
    """The error names the file, the row and the column."""
    path = written(tmp_path / "c.csv", HEADER, "hat,b,B,10,1,1", row)

    with pytest.raises(DataError, match=said) as caught:
        read_clicks(path)

    assert "c.csv row 3" in str(caught.value)


def test_clicks_that_tell_nothing_apart_are_refused(tmp_path: Path) -> None:
    """Without a query whose products differ there is nothing to learn."""
    path = written(tmp_path / "c.csv", HEADER, "hat,a,A,10,1,1", "shoe,b,B,10,1,1")

    with pytest.raises(DataError, match="no query has two products that clicks tell apart"):
        read_clicks(path)
