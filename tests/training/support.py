"""Makes a student without training one, and the context a stage runs in.

Knows the folders of a run; does not know the tests.
Invariant: needs no download, and the same call gives the same weights.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.data import sources, synthetic
from training.export import export
from training.models.fresh import fresh_body, train_tokenizer
from training.recipe import load_recipe
from training.sections.models import FreshRecipe
from training.stages import Context, Run
from training.student import student

TINY = Path(__file__).parents[2] / "training" / "recipes" / "tiny.toml"
SOURCE = "data.sources=[{kind='synthetic', name='s', queries=40}]"
SMALL = ("data.pool.products_count=60", "data.pool.queries_count=10", "augment.max_queries=20")
SHAPE = FreshRecipe(hidden=32, layers=3, heads=2, vocabulary=300)


def make_context(root: Path, stage: str, *overrides: str) -> Context:
    """Return the context of a stage whose folder already counts as finished."""
    small = [
        SOURCE,
        "data.split.validation=0.3",
        "data.split.test=0.15",
        "evaluate.resamples=100",
        "evaluate.shipped=",
    ]
    run = Run(load_recipe(TINY, [f"run.dir={root}", *small, *overrides]))
    out = root / stage
    out.mkdir(parents=True, exist_ok=True)
    (out / "stage.json").write_text("{}")
    return Context(run.recipe, out, root / "scratch", run.recipe.run.seed, run)


def make_exported(root: Path) -> Path:
    """Fill the stages data, teacher, distil and export; the student is random, with logits of order one."""
    for stage in ("teacher", "data", "distil"):
        context = make_context(root, stage)
        if stage == "data":
            sources.run(context)
    texts = [f"{row['query']} {row['title']}" for row in synthetic.judged_pairs(0, 40)]
    torch.manual_seed(0)
    model, tokenizer = fresh_body(texts, SHAPE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embeddings" not in name:
                weight.mul_(10)  # fresh weights would leave all logits alike
    contract = student.text_contract(context.recipe.text, tokenizer)
    student.save(model.eval(), tokenizer, contract, root / "distil")
    export.run(make_context(root, "export"))
    return root


def make_decoder(folder: Path, texts: list[str]) -> None:
    """Save a random two-layer causal language model with a chat template that knows the words of the texts."""
    words = [*texts, "yes no", "a shopper searches is this product itself answer user assistant red blue"] * 3
    tokenizer = train_tokenizer(words, 200)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.chat_template = "{% for m in messages %}user {{ m.content }} assistant {% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size))
    model.to(torch.float32).save_pretrained(folder)


def make_encoder(folder: Path, texts: list[str]) -> None:
    """Save a random BERT sentence encoder that knows the words of the texts."""
    torch.manual_seed(4)
    model, tokenizer = fresh_body(texts, SHAPE)
    model.bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy_run(root: Path, target: Path) -> Path:
    """Copy a run, so that a test may add stages to it."""
    return Path(shutil.copytree(root, target))


def tiny_arguments(root: Path, *overrides: str) -> list[str]:
    """The arguments after a stage's name for the tiny recipe with its run below `root`."""
    given = [f"run.dir={root / 'run'}", *SMALL, *overrides]
    return ["--recipe", str(TINY), *(part for override in given for part in ("--set", override))]


def finished(root: Path, stage: str, *overrides: str, **files: str) -> None:
    """Leave the folder of a stage that counts as finished, with the digests of its files as told."""
    run = Run(load_recipe(TINY, [f"run.dir={root / 'run'}", *SMALL, *overrides]))
    folder = run.root / stage
    folder.mkdir(parents=True, exist_ok=True)
    told = {"key": run.key(stage), "files": files}
    (folder / "stage.json").write_text(json.dumps(told), encoding="utf-8")
