"""What a judgement says in the words of its own file."""

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from training.data.sources import read_sources, read_table
from training.errors import DataError
from training.sections.data import DataRecipe, SourceRecipe, SplitRecipe


def table(path: Path, *lines: str) -> str:
    """Write a table and return its path."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_a_recipe_says_what_its_grades_are_worth(tmp_path: Path) -> None:
    """Each grade or label of a table has the target and the gain that `grades` gives it: one number, or both."""
    path = table(tmp_path / "own.csv", "query,title,grade", "x,a,5", "x,b,4.0", "x,c,Fair", "x,d,1")
    grades = {"5": 1, "4": {"target": 0.75, "gain": 0.4}, "fair": 0.25, "1": 0}
    source = SourceRecipe.model_validate({"kind": "table", "name": "own", "path": path, "grades": grades})

    assert [(row["grade"], row["target"], row["gain"]) for row in read_table(source)] == [
        (3, 1.0, 1.0),
        (1, 0.75, 0.4),
        (1, 0.25, 0.25),
        (0, 0.0, 0.0),
    ]


def test_a_grade_that_the_recipe_does_not_name_keeps_its_meaning(tmp_path: Path) -> None:
    """What `grades` leaves out is read as without it: 0 to 3 in steps, labels as ESCI has them."""
    path = table(tmp_path / "own.csv", "query,title,label,grade", "x,a,E,", "x,b,,1", "x,c,,2")
    source = SourceRecipe.model_validate(
        {"kind": "table", "name": "own", "path": path, "grades": {"1": {"target": 0.25, "gain": 0.3}}}
    )

    assert [(row["target"], round(row["gain"], 2)) for row in read_table(source)] == [
        (1.0, 1.0),
        (0.25, 0.3),
        (0.5, 0.67),
    ]


def test_a_table_may_bring_its_own_split(tmp_path: Path) -> None:
    """A column that the recipe names as the split decides over the hash; one that it does not name is nothing."""
    lines = ["query,title,grade,fold", "a,x,1,train", "b,x,1,Dev", "c,x,1,test"]
    path = table(tmp_path / "own.csv", *lines)
    own = SourceRecipe(kind="table", name="own", path=path, columns={"split": "fold"})
    hashed = SplitRecipe(validation=0.0, test=0.0)

    rows = read_sources(DataRecipe(sources=(own,), split=hashed))
    unnamed = read_sources(DataRecipe(sources=(own.model_copy(update={"columns": {}}),), split=hashed))

    assert [row["split"] for row in rows] == ["train", "validation", "test"]
    assert {row["split"] for row in unnamed} == {"train"}


def test_a_published_training_row_is_never_held_out(tmp_path: Path) -> None:
    """A row that its file has for training is for training, whatever the recipe's shares say."""
    path = table(tmp_path / "own.csv", "query,title,grade,split", "a,x,1,train", "b,x,1,test")
    own = SourceRecipe(kind="table", name="own", path=path, columns={"split": "split"})

    rows = read_sources(DataRecipe(sources=(own,), split=SplitRecipe(validation=0.9, test=0.0)))

    assert [row["split"] for row in rows] == ["train", "test"]


def test_a_split_that_is_none_is_named(tmp_path: Path) -> None:
    """A split column's value that is none of the three is an error that names the row."""
    path = table(tmp_path / "own.csv", "query,title,grade,split", "a,x,1,trian")

    with pytest.raises(DataError, match="row 2, column split: 'trian' is none of train, validation and test"):
        list(read_table(SourceRecipe(kind="table", name="o", path=path, columns={"split": "split"})))
