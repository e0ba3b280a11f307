"""Looks at the models a recipe names before any stage runs, so that what does not fit costs a minute and not hours.

Knows what each stage asks of a model's configuration and tokenizer; loads no weights.
Invariant: a model that would stop its stage is one line that says what does not fit, and what to set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from training.errors import StageError
from training.models.hub import load_pretrained, one_line
from training.recipe import Recipe
from training.sections.student import CONTRACT_FILE
from training.sections.teacher import JudgeRecipe
from training.stages import Run

BIENCODER_TOKENS = 128  # of a text that training.models.biencoder embeds
# architectures whose first positions are never a token's: as many as the padding's id, and one
OFFSET = {
    "camembert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


@dataclass(frozen=True, slots=True)
class Named:
    """A model as the recipe names it, at `key`, with its configuration and tokenizer."""

    key: str
    model: str
    config: Any
    tokenizer: Any

    def refuse(self, problem: str) -> StageError:
        """Return the error that names the key and the model."""
        return StageError(f"{self.key}: {self.model} {problem}")

    def fits(self, key: str, tokens: int) -> None:
        """StageError if a text of so many tokens, as the recipe says at `key`, has more than the positions."""
        positions = getattr(self.config, "max_position_embeddings", None)
        if not positions or getattr(self.config, "position_biased_input", True) is False:
            return  # positions are relative
        if self.config.model_type in OFFSET:
            positions -= (self.config.pad_token_id or 0) + 1
        if tokens > positions:
            raise self.refuse(
                f"has {positions} positions and {key} is {tokens}: set it to {positions} or less"
            )

    def is_of(self, kinds: Iterable[str], what: str) -> None:
        """StageError if the architecture is none of those that can be `what`."""
        if self.config.model_type not in kinds:
            raise self.refuse(f"is a {self.config.model_type} model, which is no {what}: name another one")

    def pads(self, *, by_end: bool = False) -> None:
        """StageError if the tokenizer has nothing to pad with, or more pieces than the model has embeddings."""
        if self.tokenizer.pad_token is None and not (by_end and self.tokenizer.eos_token):
            raise self.refuse("has no pad token: set pad_token in its tokenizer_config.json")
        rows = getattr(self.config, "vocab_size", None)
        if rows and len(self.tokenizer) > rows:
            raise self.refuse(
                f"has {rows} embeddings for the {len(self.tokenizer)} pieces of its tokenizer: "
                "take both from one model"
            )


Check = Callable[[Named], None]


def check_models(run: Run, stages: Iterable[str]) -> None:
    """Look at every model of the stages that are to run; StageError names the first that does not fit."""
    for stage in stages:
        asked = any(_named(run.recipe, stage)) or (stage == "distil" and run.recipe.distil.average_with)
        if asked and not run.is_current(stage):
            check_stage(run.recipe, stage, run.weights)


def check_stage(recipe: Recipe, stage: str, weights: Mapping[str, str]) -> None:
    """Look at every model of one stage; StageError names the first that does not fit."""
    for key, model, gguf_file, check in _named(recipe, stage):
        check(_looked_at(key, model, weights.get(model, model), gguf_file))
    for folder in recipe.distil.average_with if stage == "distil" else ():
        if not (Path(folder) / CONTRACT_FILE).is_file():
            raise StageError(f"distil.average_with: {folder} holds no student: run its recipe first")


def _named(recipe: Recipe, stage: str) -> Iterator[tuple[str, str, str, Check]]:
    """Yield key, model, GGUF file and check of every model that a stage reads."""
    if stage == "teacher" and recipe.teacher is not None and recipe.teacher.model:
        yield "teacher.model", recipe.teacher.model, recipe.teacher.gguf_file, partial(_teacher, recipe)
    if stage == "judge" and recipe.judge is not None:
        yield "judge.model", recipe.judge.model, recipe.judge.gguf_file, partial(_judge, recipe.judge)
    if stage == "distil" and recipe.distil.model:
        yield "distil.model", recipe.distil.model, "", partial(_student, recipe)
    encoders = {"evaluate": recipe.evaluate.biencoder}
    if recipe.augment is not None:
        encoders["augment"] = recipe.augment.biencoder
    if encoders.get(stage):
        yield f"{stage}.biencoder", encoders[stage], "", _biencoder
    if stage in ("blend", "panel") and recipe.blend is not None:
        for part in recipe.blend.encoders:
            yield "blend.encoders", part.model, "", _biencoder


@cache
def _looked_at(key: str, model: str, weights: str, gguf_file: str) -> Named:
    from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415 - seconds, for recipes that name a model

    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        config = load_pretrained(AutoConfig, weights, **options)
        return Named(key, model, config, load_pretrained(AutoTokenizer, weights, **options))
    except StageError as error:
        raise StageError(f"{key}: {error}") from error


def _teacher(recipe: Recipe, named: Named) -> None:
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    named.is_of(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "sequence classifier")
    kinds = getattr(named.config, "architectures", None) or [""]
    if "ForSequenceClassification" in kinds[0] and named.config.num_labels != 1:
        raise named.refuse(
            f"has a head of {named.config.num_labels} labels, and relevance is one logit: "
            "name the model that it was fine-tuned from, or a reranker with one label"
        )
    named.fits("teacher.max_length", recipe.teacher.max_length)
    named.pads(by_end=True)


def _student(recipe: Recipe, named: Named) -> None:
    from training.student.student import check_shape, text_contract  # noqa: PLC0415

    named.is_of({"bert"}, "BERT, and only BERT bodies can be students")
    named.fits("text.max_length", recipe.text.max_length)
    named.pads()
    check_shape(recipe.distil, named.config)
    try:
        text_contract(recipe.text, named.tokenizer)
    except (TypeError, ValueError) as error:
        raise named.refuse(
            f"has no tokenizer that joins two texts by fixed tokens ({one_line(error)})"
        ) from error


def _judge(recipe: JudgeRecipe, named: Named) -> None:
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    from training.teacher.judge import answer_pieces, frame  # noqa: PLC0415

    named.is_of(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "causal language model")
    if not named.tokenizer.chat_template:
        raise named.refuse("has no chat template: name a model that was tuned to follow instructions")
    try:
        frame(named.tokenizer, recipe.prompt, "query")
    except Exception as error:
        raise named.refuse(
            f"has a chat template that does not take the prompt ({one_line(error)})"
        ) from error
    if not all(answer_pieces(named.tokenizer)):
        raise named.refuse("has no single piece for yes or for no: name another model")


def _biencoder(named: Named) -> None:
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    named.is_of(modeling_auto.MODEL_MAPPING_NAMES, "encoder")
    named.fits("the length that texts are cut to", BIENCODER_TOKENS)
    named.pads()
