"""Recipes: what is refused and how overrides act."""

from pathlib import Path

import pytest

from training.recipe import RecipeError, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))
TINY = next(path for path in RECIPES if path.name == "tiny.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_committed_recipes_parse(path: Path) -> None:
    """Every recipe in the repository is valid."""
    assert load_recipe(path).run.name == path.stem


def test_overrides_reach_nested_keys() -> None:
    """A number and a text are set by section.key=value."""
    recipe = load_recipe(TINY, ["distil.epochs=1", "run.dir=elsewhere", "teacher.fresh.hidden=32"])

    assert (recipe.distil.epochs, recipe.run.dir, recipe.teacher.fresh.hidden) == (1, "elsewhere", 32)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("distil.epoch=1", "distil.epoch"),
        ("distil.epochs=-1", "distil.epochs"),
        ("distil.epochs=many", "distil.epochs"),
        ("nonsense", "section.key=value"),
        ("run.name.more=1", "not a section"),
    ],
)
def test_wrong_keys_and_values_name_themselves(override: str, told: str) -> None:
    """An unknown key, a value out of range or a malformed override is an error that names it."""
    with pytest.raises(RecipeError, match=told):
        load_recipe(TINY, [override])


def test_file_problems_are_named(tmp_path: Path) -> None:
    """A missing file and a file that is no TOML are errors with the path."""
    with pytest.raises(RecipeError, match=r"gone\.toml"):
        load_recipe(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("[run", encoding="utf-8")
    with pytest.raises(RecipeError, match="not TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_hash_follows_the_numbers() -> None:
    """The recipe's hash changes with any value and with nothing else."""
    assert load_recipe(TINY).sha256() == load_recipe(TINY).sha256()
    assert load_recipe(TINY).sha256() != load_recipe(TINY, ["run.seed=8"]).sha256()
