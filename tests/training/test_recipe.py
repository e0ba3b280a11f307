"""Recipes: what is refused and how overrides act."""

from pathlib import Path

import pytest

from training.errors import RecipeError
from training.recipe import load_recipe
from training.stages import Run

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))
TINY = next(path for path in RECIPES if path.name == "tiny.toml")
SHOP = TINY.with_name("shop.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_committed_recipes_parse(path: Path) -> None:
    """Every recipe in the repository is valid, and its bundle's name is the file's or its last part."""
    assert path.stem.endswith(load_recipe(path).run.name)


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


def test_a_recipe_says_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    """Tables are merged, lists and values replaced, and an override still has the last word."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tiny.toml").write_text(TINY.read_text())
    path = tmp_path / "smaller.toml"
    path.write_text(
        'extends = "base/tiny.toml"\n[run]\nname = "smaller"\n[distil]\nepochs = 3\nfresh = {hidden = 32}\n'
        '[text]\nfields = [{name = "title", max_chars = 50, max_tokens = 8}]\n'
    )
    base, recipe = load_recipe(TINY), load_recipe(path, ["distil.group=7"])

    assert (recipe.run.name, recipe.distil.epochs, recipe.distil.fresh.hidden) == ("smaller", 3, 32)
    assert recipe.distil.group == 7
    assert (recipe.run.seed, recipe.distil.fresh.vocabulary) == (base.run.seed, base.distil.fresh.vocabulary)
    assert [field.name for field in recipe.text.fields] == ["title"]
    assert recipe.teacher == base.teacher


def test_a_recipe_that_extends_itself_or_nothing_is_refused(tmp_path: Path) -> None:
    """A circle, a missing base and a base that is no path are told by name."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{other}.toml"\n')
    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(tmp_path / "a.toml")
    (tmp_path / "c.toml").write_text('extends = "absent.toml"\n')
    with pytest.raises(RecipeError, match=r"absent\.toml: cannot be read"):
        load_recipe(tmp_path / "c.toml")
    (tmp_path / "d.toml").write_text("extends = 1\n")
    with pytest.raises(RecipeError, match="extends: expected the path"):
        load_recipe(tmp_path / "d.toml")


def test_a_bundle_of_half_precision_needs_its_graph() -> None:
    """Asking for fp16 without making it is refused before anything runs."""
    with pytest.raises(RecipeError, match=r"set export\.fp16 = true"):
        load_recipe(TINY, ["bundle.precisions=['int8', 'fp16']"])
    recipe = load_recipe(TINY, ["bundle.precisions=['int8', 'fp16']", "export.fp16=true"])
    assert recipe.bundle.precisions == ("int8", "fp16")


def test_a_recipe_takes_away_what_it_does_not_want(tmp_path: Path) -> None:
    """`false` in the place of a section, or of a table in one, takes away that of the recipe below; so does an override."""
    path = tmp_path / "alone.toml"
    path.write_text(
        f'extends = "{TINY}"\nteacher = false\naugment = false\nblend = false\n[data]\npool = false\n'
        '[distil]\nlearn_from = "labels"\nfresh = false\n'
    )
    recipe = load_recipe(path)

    assert recipe.teacher is recipe.augment is recipe.label is recipe.blend is recipe.data.pool is None
    assert recipe.distil.fresh == type(recipe.distil.fresh)()
    assert load_recipe(TINY, ["data.pool=false"]).data.pool is None
    assert load_recipe(TINY, ["distil.bf16=false"]).distil.bf16 is False


def test_who_learns_from_labels_is_asked_for_no_teacher() -> None:
    """Without a teacher no stage around one is wanted; calibration and the rest go by their defaults."""
    recipe = load_recipe(SHOP)

    assert len(SHOP.read_text().splitlines()) <= 25
    assert recipe.teacher is recipe.label is recipe.augment is None
    assert Run(recipe).wanted() == ["data", "distil", "calibrate", "export", "quantize", "evaluate", "bundle"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("distil.learn_from=teacher", r"no \[teacher\] section: add one, or learn from the judgments"),
        ("label.batch_pairs=8", r"\[label\] is for a teacher"),
        ("augment.depth=8", r"\[augment\] is for a teacher"),
    ],
)
def test_what_is_for_a_teacher_needs_one(override: str, told: str) -> None:
    """Learning from a teacher that is not there, or setting what only one would use, is refused."""
    with pytest.raises(RecipeError, match=told):
        load_recipe(SHOP, [override])
