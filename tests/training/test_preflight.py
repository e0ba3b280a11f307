"""Models held against the recipe before anything runs, and folders that are damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, T5Config

from tests.training.support import SHAPE, SMALL, TINY, finished, make_decoder, make_encoder, tiny_arguments
from training.__main__ import main
from training.data import synthetic
from training.errors import StageError
from training.export.export import load_student
from training.models.fresh import fresh_body
from training.preflight import Named, check_stage
from training.recipe import load_recipe
from training.stages import Run
from training.student import student
from training.teacher import teacher

TEXTS = [f"{row['query']} {row['title']}" for row in synthetic.judged_pairs(0, 40)]
# each stage that reads a model, and how the recipe names it there
READERS = {
    "teacher": "teacher.model={}",
    "judge": "judge={{model='{}', queries=2, train_lists=2}}",
    "distil": "distil.model={}",
    "augment": "augment.biencoder={}",
    "blend": "blend={{encoders=[{{model='{}'}}]}}",
    "evaluate": "evaluate.biencoder={}",
}


def no_folder(folder: Path) -> None:
    """Leave nothing in the folder."""
    for path in folder.iterdir():
        path.unlink()


def cut(name: str, size: int = 40) -> Callable[[Path], None]:
    """Return a damage: a file that ends early."""

    def damage(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return damage


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    """Return a damage: keys of a JSON file that say something else; None takes one away."""

    def damage(folder: Path) -> None:
        told = json.loads((folder / name).read_text()) | values
        kept = {key: value for key, value in told.items() if value is not None}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return damage


def renamed(folder: Path) -> None:
    """Leave weights under names that the configuration's architecture does not have."""
    weights = load_file(folder / "model.safetensors")
    save_file({f"foreign.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")


MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (no_folder, "cannot be loaded"),
    "config, cut": (cut("config.json"), "cannot be loaded"),
    "config of nothing known": (changed("config.json", model_type="unheard-of"), "cannot be loaded"),
    "tokenizer, cut": (cut("tokenizer.json"), "cannot be loaded"),
    "weights, cut": (cut("model.safetensors"), "cannot be loaded"),
    "weights of another model": (renamed, "belong to different models"),
    "weights of another shape": (changed("config.json", hidden_size=64), "cannot be loaded"),
}


def run_with(root: Path, stage: str, model: str) -> list[str]:
    """Finish what a stage reads, in name, and return the arguments that run it with a model."""
    override = READERS[stage].format(model)
    recipe = load_recipe(TINY, [f"run.dir={root / 'run'}", *SMALL, override])
    assert main(["data", *tiny_arguments(root, override)]) == 0
    if stage in ("judge", "blend"):
        assert stage == "blend" or main(["augment", *tiny_arguments(root, override)]) == 0
    for other in Run(recipe).reads(stage):
        if other not in ("data", "augment"):
            finished(root, other, override)
    return [stage, *tiny_arguments(root, override)]


DAMAGES = [
    (stage, kind)
    for stage in READERS
    for kind in MODELS
    # the others load weights after what no fake of an earlier stage gives, by the same loader
    if stage in ("teacher", "judge", "augment") or not kind.startswith("weights")
]


@pytest.mark.parametrize(("stage", "kind"), DAMAGES)
def test_a_broken_model_folder_is_one_line(
    tmp_path: Path, stage: str, kind: str, refused: Callable[..., str]
) -> None:
    """Every damage to a model's folder stops every stage that reads one, with the folder's name."""
    folder = tmp_path / "model"
    (make_decoder if stage == "judge" else make_encoder)(folder, TEXTS)
    damage, told = MODELS[kind]
    damage(folder)

    line = refused(*run_with(tmp_path, stage, str(folder)))

    assert str(folder) in line
    assert told in line


def encoder(folder: Path, **values: Any) -> None:
    """Save an encoder whose configuration says something else."""
    make_encoder(folder, TEXTS)
    changed("config.json", **values)(folder)


def classifier(folder: Path) -> None:
    """Save a classifier of three labels."""
    torch.manual_seed(1)
    _, tokenizer = fresh_body(TEXTS, SHAPE)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def of_another_kind(folder: Path) -> None:
    """Save the configuration of an encoder and decoder, and a tokenizer."""
    make_encoder(folder, TEXTS)
    T5Config(vocab_size=300).save_pretrained(folder)


def decoder(folder: Path, **values: Any) -> None:
    """Save a causal model whose tokenizer says something else."""
    make_decoder(folder, TEXTS)
    for path in folder.glob("chat_template*"):
        path.unlink()
    changed("tokenizer_config.json", **values)(folder)


MISFITS = [
    (
        "teacher",
        lambda f: encoder(f, max_position_embeddings=40),
        "has 40 positions and teacher.max_length is 48",
    ),
    ("teacher", classifier, "has a head of 3 labels"),
    (
        "teacher",
        lambda f: (make_encoder(f, TEXTS), changed("tokenizer_config.json", pad_token=None)(f)),
        "no pad token",
    ),
    ("teacher", lambda f: encoder(f, vocab_size=20), "has 20 embeddings for the"),
    ("distil", of_another_kind, "is a t5 model, which is no BERT"),
    (
        "distil",
        lambda f: encoder(f, max_position_embeddings=40),
        "has 40 positions and text.max_length is 48",
    ),
    (
        "distil",
        lambda f: (make_encoder(f, TEXTS), changed("tokenizer_config.json", pad_token=None)(f)),
        "no pad token",
    ),
    ("augment", lambda f: encoder(f, max_position_embeddings=100), "has 100 positions"),
    ("judge", lambda f: make_encoder(f, TEXTS), "has no chat template"),
    ("judge", lambda f: decoder(f, chat_template=None), "has no chat template"),
    (
        "judge",
        lambda f: decoder(f, chat_template="{{ nothing.at_all }}"),
        "has a chat template that does not take",
    ),
]


@pytest.mark.parametrize(("stage", "make", "told"), MISFITS)
def test_a_model_that_does_not_fit_is_told_before_anything_runs(
    tmp_path: Path, stage: str, make: Callable[[Path], Any], told: str, refused: Callable[..., str]
) -> None:
    """Labels, positions, pad token and architecture are held against the recipe before the first stage."""
    folder = tmp_path / "model"
    make(folder)

    line = refused("all", *tiny_arguments(tmp_path, READERS[stage].format(folder)))

    assert told in line
    assert str(folder) in line
    assert not (tmp_path / "run" / "data").exists()


@pytest.mark.parametrize("stage", READERS)
def test_a_model_that_fits_is_let_through(tmp_path: Path, stage: str) -> None:
    """A model that every stage can use stops none."""
    (make_decoder if stage == "judge" else make_encoder)(tmp_path / "model", TEXTS)
    override = READERS[stage].format("some/model")

    check_stage(load_recipe(TINY, [override]), stage, {"some/model": str(tmp_path / "model")})


def test_positions_that_no_token_has_are_not_counted() -> None:
    """A RoBERTa's first positions are its padding's, so 514 of them tell 512 tokens apart."""
    config = SimpleNamespace(model_type="roberta", max_position_embeddings=514, pad_token_id=1)
    named = Named("teacher.model", "roberta", config, None)

    named.fits("teacher.max_length", 512)
    with pytest.raises(StageError, match=r"512 positions and teacher\.max_length is 513: set it to 512"):
        named.fits("teacher.max_length", 513)


def test_a_student_to_average_with_is_looked_for_before_anything_runs(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    """A student that is not there to be averaged with is told before hours of training, not after."""
    line = refused("all", *tiny_arguments(tmp_path, "distil.average_with=['absent']"))

    assert "absent holds no student: run its recipe first" in line
    assert not (tmp_path / "run" / "data").exists()


def test_layers_that_a_body_does_not_have_are_told_before_anything_runs(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    """A student's layers are held against the body's before its teacher is trained."""
    make_encoder(tmp_path / "model", TEXTS)

    assert "has 3 layers" in refused(
        "all", *tiny_arguments(tmp_path, f"distil.model={tmp_path / 'model'}", "distil.layers=[0, 7]")
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "text_contract.json"])
def test_a_broken_student_is_one_error(exported: Path, tmp_path: Path, name: str) -> None:
    """A student's folder with one file cut or gone, as distil.average_with may name, is refused."""
    folder = tmp_path / "student"
    folder.mkdir()
    for path in (exported / "distil").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    loaders = [lambda: student.load(folder)]
    if name in ("config.json", "model.safetensors"):
        loaders += [lambda: load_student(folder), lambda: teacher.load(folder, load_recipe(TINY).teacher)]

    for damage in (cut(name), lambda folder: (folder / name).unlink()):
        damage(folder)
        for load in loaders:
            with pytest.raises(StageError, match="student"):
                load()
