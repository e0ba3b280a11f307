"""The weights of a cross-encoder as one torch module of logits, whatever computes its head.

Knows transformers' classes and the modules of sentence-transformers; does not know graphs or texts.
Invariant: every weight comes from the model's files; what is not there is refused, never drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from training.errors import StageError
from training.importing.folder import Source, Step
from training.models.hub import load_pretrained, one_line

OURS = ("bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
STOCK = ("deberta-v2", "modernbert")
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.GELU, nn.Identity, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Tanh)
}


class Headed(nn.Module):
    """A body with the head that sentence-transformers keeps in modules of its own; computes as a classifier does."""

    def __init__(self, body: PreTrainedModel, pooling: str, head: nn.Sequential, labels: int) -> None:
        """Take the body, how its tokens become one vector, and what makes `labels` logits of that."""
        super().__init__()
        self.body, self.pooling, self.head = body, pooling, head
        self.config = body.config
        self.config.num_labels = labels

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return logits [batch, labels]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        tokens = self.body(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            mask = attention_mask[:, :, None].to(tokens.dtype)
            pooled = (tokens * mask).sum(1) / mask.sum(1)
        return SequenceClassifierOutput(logits=self.head(pooled))


class _Residual(nn.Module):
    """What a layer makes of its input, and the input again."""

    def __init__(self, layer: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.layer, self.skip = layer, skip

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values) + self.skip(values)


class _Normalize(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.normalize(values, dim=-1)


def load(source: Source) -> nn.Module:
    """Return the model in float32 and evaluation mode, with its `config`; StageError if weights lack."""
    if source.kind not in OURS + STOCK:
        raise StageError(
            f"{source.name}: no bundle of architecture {source.kind or 'without a name'}; "
            f"it is none of {', '.join(OURS + STOCK)}"
        )
    model = _load(source, AutoModel if source.steps else AutoModelForSequenceClassification)
    return (_headed(source, model) if source.steps else model).eval()


def positions_of(source: Source, model: nn.Module) -> int:
    """Return how many tokens a row may have."""
    config = model.config
    counted = source.kind in {"camembert", "mpnet", "roberta", "xlm-roberta"}  # from the padding's place on
    return int(config.max_position_embeddings) - (config.pad_token_id + 1 if counted else 0)


def _load(source: Source, loader: Any) -> PreTrainedModel:
    """Load a body or a whole classifier; of a body, its pooler alone may be absent, which nothing reads."""
    model, told = load_pretrained(
        loader,
        str(source.folder),
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    lacking = sorted(key for key in told["missing_keys"] if not (source.steps and "pooler" in key))
    if lacking:
        what = "the weights of its head" if all(_is_of_head(key) for key in lacking) else "weights"
        raise StageError(
            f"{source.name} lacks {what} ({', '.join(lacking[:3])}): a score would be chance; if it is a body to "
            "train, make it the student of a recipe (docs/training.md)"
        )
    if told.get("mismatched_keys"):
        raise StageError(f"{source.name}: its weights have other shapes than its config.json says")
    return model


def _is_of_head(key: str) -> bool:
    return key.partition(".")[0] in {"classifier", "pre_classifier", "head", "pooler", "score"}


def _headed(source: Source, body: PreTrainedModel) -> Headed:
    """Put the head of sentence-transformers' modules on a body."""
    try:
        return _built(source, body)
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"{source.name}: a module's config.json is broken ({one_line(error)})") from error


def _built(source: Source, body: PreTrainedModel) -> Headed:
    first, *rest = source.steps
    pooling = first.settings.get("pooling_mode")
    if pooling is None:  # as it was written before version 5.4
        names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
        chosen = [
            key for key, value in first.settings.items() if key.startswith("pooling_mode_") and value is True
        ]
        pooling = names.get(chosen[0]) if len(chosen) == 1 else None
    if first.kind != "Pooling" or pooling not in {"cls", "mean"}:
        raise StageError(
            f"{source.name}: after the transformer comes {first.kind} ({pooling}), expected Pooling by cls or mean"
        )
    labels = int(rest[-1].settings["out_features"])
    return Headed(body, pooling, nn.Sequential(*(_layer(source, step) for step in rest)), labels)


def _layer(source: Source, step: Step) -> nn.Module:
    """Return one module of a head with its weights."""
    told = step.settings
    if step.kind == "Dropout":
        return nn.Identity()
    if step.kind == "Normalize":
        return _Normalize()
    if step.kind == "LayerNorm":
        made: nn.Module = nn.LayerNorm(told["dimension"])
        return _filled(made, _weights(step), "norm.")
    activation = str(told.get("activation_function", "torch.nn.Tanh")).rpartition(".")[2]
    reads = told.get("module_input_name", "sentence_embedding")
    if step.kind != "Dense" or activation not in ACTIVATIONS or reads != "sentence_embedding":
        raise StageError(
            f"{source.name}: its head has a {step.kind} ({activation} of {reads}), expected Dense with one of "
            f"{', '.join(ACTIVATIONS)}, LayerNorm, Normalize or Dropout"
        )
    sizes, weights = (told["in_features"], told["out_features"]), _weights(step)
    linear = _filled(nn.Linear(*sizes, bias=told.get("bias", True)), weights, "linear.")
    layer = nn.Sequential(linear, ACTIVATIONS[activation]())
    if not told.get("use_residual"):
        return layer
    skip = nn.Identity() if sizes[0] == sizes[1] else nn.Linear(*sizes, bias=False)
    return _Residual(layer, _filled(skip, weights, "residual."))


def _weights(step: Step) -> dict[str, Tensor]:
    path = step.folder / "model.safetensors"
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise StageError(f"{path} cannot be read ({error})") from error


def _filled(module: nn.Module, weights: Mapping[str, Tensor], prefix: str) -> nn.Module:
    """Return the module with the weights under a prefix; StageError if they are not just its own."""
    own = {
        key.removeprefix(prefix): value.float() for key, value in weights.items() if key.startswith(prefix)
    }
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise StageError(f"the head's weights {prefix}* are not those of its config ({error})") from error
    return module
