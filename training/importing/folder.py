"""A cross-encoder's folder as transformers and sentence-transformers write it: what its files say of it.

Knows names of files and keys; does not know weights or tokenizers.
Invariant: what is returned scores a pair of texts, as far as its files say; all else is a StageError in one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import StageError
from training.models.hub import one_line

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]  # merges and vocabularies are text
ELSEWHERE = [
    "onnx/*",
    "openvino/*",
    "*/onnx/*",
    "*/openvino/*",
    "*.gguf",
]  # the same weights for other programs
HEAD = "ForSequenceClassification"
ENCODERS = ("SentenceTransformer", "SparseEncoder", "MultiVectorEncoder")


@dataclass(frozen=True, slots=True)
class Step:
    """A module that sentence-transformers runs after the transformer: its kind, its folder and its settings."""

    kind: str
    folder: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A cross-encoder before its weights are read.

    `activation` is the last part of the class that it applies to its logits; `longest` what it wants of a pair, in
    tokens; `lowers` says that texts are lower-cased first; `names` are those of its classes, in order.
    """

    name: str
    folder: Path
    kind: str
    steps: tuple[Step, ...]
    activation: str
    longest: int | None
    lowers: bool
    names: tuple[str, ...]


def fetch(model: str, weights: str = "") -> Path:
    """Return the folder of a model: the one that is given, the one it names, or the hub's copy."""
    given = Path(weights or model)
    if given.is_dir():
        return given
    if weights or given.exists() or model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise StageError(f"{given} is no folder; name one that holds config.json and weights, or a hub id")
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - a second of imports, for hub ids alone

        folder = Path(snapshot_download(model, allow_patterns=WANTED, ignore_patterns=ELSEWHERE))
        if not any(folder.glob("*.safetensors")):
            folder = Path(
                snapshot_download(model, allow_patterns=[*WANTED, "*.bin"], ignore_patterns=ELSEWHERE)
            )
    except Exception as error:
        raise StageError(
            f"model {model!r} cannot be had: it is no local folder, and the hub did not give it ({one_line(error)}); "
            "download it elsewhere and name its folder by --weights DIR"
        ) from error
    return folder


def read_source(folder: Path, name: str) -> Source:
    """Return what the files of a model say of it; StageError if it is none that scores pairs."""
    config = _object(folder / "config.json")
    if config is None:
        raise StageError(f"{folder} holds no config.json: it is no folder of a model")
    ours = _object(folder / "config_sentence_transformers.json") or {}
    transformer = _object(folder / "sentence_bert_config.json") or {}
    steps = _steps(folder)
    _check(name, config, ours, steps)
    older = config.get("sentence_transformers")
    activation = (
        ours.get("activation_fn")
        or (older.get("activation_fn") if isinstance(older, dict) else None)
        or config.get("sbert_ce_default_activation_function")
        or ""
    )
    names = config.get("id2label") or {}
    return Source(
        name=name,
        folder=folder,
        kind=str(config.get("model_type", "")),
        steps=steps,
        activation=str(activation).rpartition(".")[2],
        longest=transformer.get("max_seq_length"),
        lowers=bool(transformer.get("do_lower_case", False)),
        names=tuple(str(names[key]) for key in sorted(names, key=int)),
    )


def _steps(folder: Path) -> tuple[Step, ...]:
    """Return what follows the transformer; nothing in a folder that transformers wrote."""
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    modules = _read(path)
    try:
        told = [(str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in modules]
    except (TypeError, KeyError) as error:
        raise StageError(f"{path} is broken: expected a list of modules with type and path") from error
    if not told or told[0][0] != "Transformer":
        raise StageError(f"{path}: expected a Transformer first, found {told[0][0] if told else 'nothing'}")
    return tuple(Step(kind, place, _object(place / "config.json") or {}) for kind, place in told[1:])


def _check(name: str, config: Mapping[str, Any], ours: Mapping[str, Any], steps: tuple[Step, ...]) -> None:
    """Refuse what does not score a pair, or scores it by a prompt."""
    architecture = next(iter(config.get("architectures") or ()), "")
    scores = bool(steps) and steps[-1].settings.get("module_output_name") == "scores"
    if ours.get("model_type") in ENCODERS or (steps and not scores):
        raise StageError(
            f"{name} is a sentence encoder, which embeds each text by itself and has no head that scores a pair: "
            "name it as the student's model in a recipe and train it (docs/training.md), or import a cross-encoder"
        )
    if architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
        raise StageError(
            f"{name} is a language model ({architecture}) that answers in words: it can be the judge of a recipe "
            "(docs/training.md), and what learns from it is served"
        )
    if not scores and not architecture.endswith(HEAD):
        raise StageError(
            f"{name} has no head that scores a pair: its config.json says {architecture or 'no architecture'}, expected "
            f"one that ends in {HEAD}; train a body as the student of a recipe first (docs/training.md)"
        )
    prompt = (ours.get("prompts") or {}).get(ours.get("default_prompt_name") or "", "")
    if prompt:
        raise StageError(f"{name} puts a prompt before its texts ({prompt[:40]!r}), which a bundle cannot")


def _object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file, None if there is no such file."""
    if not path.is_file():
        return None
    told = _read(path)
    if not isinstance(told, dict):
        raise StageError(f"{path} is broken: expected a JSON object")
    return told


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} is broken ({one_line(error)})") from error
