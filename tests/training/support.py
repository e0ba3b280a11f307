"""Makes a student without training one, and the context a stage runs in.

Knows the folders of a run; does not know the tests.
Invariant: needs no download, and the same call gives the same weights.
"""

import shutil
from pathlib import Path

import torch

from training import data, export, student, synthetic
from training.recipe import FreshRecipe, load_recipe
from training.stages import Context, Run

TINY = Path(__file__).parents[2] / "training" / "recipes" / "tiny.toml"
SOURCE = "data.sources=[{kind='synthetic', name='s', queries=40}]"
SHAPE = FreshRecipe(hidden=32, layers=3, heads=2, vocabulary=300)


def make_context(root: Path, stage: str, *overrides: str) -> Context:
    """Return the context of a stage whose folder already counts as finished."""
    run = Run(load_recipe(TINY, [f"run.dir={root}", SOURCE, "evaluate.resamples=100", *overrides]))
    out = root / stage
    out.mkdir(parents=True, exist_ok=True)
    (out / "stage.json").write_text("{}")
    return Context(run.recipe, out, root / "scratch", run.recipe.run.seed, run)


def make_exported(root: Path) -> Path:
    """Fill the stages data, teacher, distil and export; the student is random, with logits of order one."""
    for stage in ("teacher", "data", "distil"):
        context = make_context(root, stage)
        if stage == "data":
            data.run(context)
    texts = [f"{row['query']} {row['title']}" for row in synthetic.judged_pairs(0, 40)]
    torch.manual_seed(0)
    model, tokenizer = student.fresh_body(texts, SHAPE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embeddings" not in name:
                weight.mul_(10)  # fresh weights would leave all logits alike
    contract = student.text_contract(context.recipe.text, tokenizer)
    student.save(model.eval(), tokenizer, contract, root / "distil")
    export.run(make_context(root, "export"))
    return root


def copy_run(root: Path, target: Path) -> Path:
    """Copy a run, so that a test may add stages to it."""
    return Path(shutil.copytree(root, target))
