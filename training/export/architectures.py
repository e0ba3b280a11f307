"""Finds the weights of the one transformer that training.export.flat computes in models of the BERT family.

Knows where Hugging Face models keep their modules; does not know how anything is computed or exported.
Invariant: a model that computes something else is refused with the reason, never read wrongly.

To add an architecture whose layers are attention and feed-forward, each followed by residual and normalisation:
write a function from its model to `Parts`, name it in `ADAPTERS`, and add a model to tests/training/families.py;
the tests then hold it to the original.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu
from transformers import (
    BertForSequenceClassification,
    CamembertForSequenceClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    MPNetForSequenceClassification,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)

Activation = Callable[[Tensor], Tensor]

# The library's names; those of one line are one function, written in several ways that differ by rounding.
ACTIVATIONS: dict[str, Activation] = {
    **dict.fromkeys(("gelu", "gelu_python"), gelu),
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"),
        partial(gelu, approximate="tanh"),
    ),
    "relu": relu,
}


@dataclass(frozen=True, slots=True)
class LayerParts:
    """The modules of one transformer layer."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    project: nn.Linear
    attention_norm: nn.LayerNorm
    expand: nn.Linear
    contract: nn.Linear
    output_norm: nn.LayerNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that decides a relevance logit, in the order in which it is computed.

    words [vocabulary, embedding], positions [longest, embedding], types [types, embedding] if token types matter.
    `padding_id`: tokens other than this one are counted, and their count plus it is their position; without it the
    position is the place in the row. `distances` [2 * longest - 1, heads] is added to attention scores, by place of
    key minus place of query, from 1 - longest on.
    """

    words: Tensor
    positions: Tensor
    types: Tensor | None = None
    padding_id: int | None = None
    norm: nn.LayerNorm
    widen: nn.Linear | None = None
    distances: Tensor | None = None
    heads: int
    activation: str
    layers: tuple[LayerParts, ...]
    pooler: nn.Linear
    pooled: Activation
    classifier: nn.Linear

    @property
    def longest(self) -> int:
        """How many tokens a row may have."""
        return len(self.positions) - (0 if self.padding_id is None else self.padding_id + 1)


def _bert(model: BertForSequenceClassification) -> Parts:
    body = model.bert
    return Parts(
        **_embeddings(body.embeddings),
        **_encoder(body),
        pooler=body.pooler.dense,
        pooled=torch.tanh,
        classifier=model.classifier,
    )


def _electra(model: ElectraForSequenceClassification) -> Parts:
    body, head = model.electra, model.classifier
    return Parts(
        **_embeddings(body.embeddings),
        **_encoder(body),
        widen=getattr(body, "embeddings_project", None),
        pooler=head.dense,
        pooled=gelu,
        classifier=head.out_proj,
    )


def _roberta(model: RobertaForSequenceClassification) -> Parts:
    body, head = model.roberta, model.classifier
    return Parts(
        **_embeddings(body.embeddings),
        **_encoder(body),
        padding_id=body.embeddings.padding_idx,
        pooler=head.dense,
        pooled=torch.tanh,
        classifier=head.out_proj,
    )


def _distilbert(model: DistilBertForSequenceClassification) -> Parts:
    body, config = model.distilbert, model.config
    layers = (
        LayerParts(
            query=layer.attention.q_lin,
            key=layer.attention.k_lin,
            value=layer.attention.v_lin,
            project=layer.attention.out_lin,
            attention_norm=layer.sa_layer_norm,
            expand=layer.ffn.lin1,
            contract=layer.ffn.lin2,
            output_norm=layer.output_layer_norm,
        )
        for layer in body.transformer.layer
    )
    return Parts(
        words=body.embeddings.word_embeddings.weight,
        positions=body.embeddings.position_embeddings.weight,
        norm=body.embeddings.LayerNorm,
        heads=config.n_heads,
        activation=config.activation,
        layers=tuple(layers),
        pooler=model.pre_classifier,
        pooled=relu,
        classifier=model.classifier,
    )


def _mpnet(model: MPNetForSequenceClassification) -> Parts:
    body, head, config = model.mpnet, model.classifier, model.config
    layers = (
        LayerParts(
            query=layer.attention.attn.q,
            key=layer.attention.attn.k,
            value=layer.attention.attn.v,
            project=layer.attention.attn.o,
            attention_norm=layer.attention.LayerNorm,
            expand=layer.intermediate.dense,
            contract=layer.output.dense,
            output_norm=layer.output.LayerNorm,
        )
        for layer in body.encoder.layer
    )
    padding_id = body.embeddings.padding_idx
    positions = body.embeddings.position_embeddings.weight
    longest = len(positions) - padding_id - 1
    buckets = body.encoder.relative_position_bucket(torch.arange(1 - longest, longest))
    return Parts(
        words=body.embeddings.word_embeddings.weight,
        positions=positions,
        padding_id=padding_id,
        norm=body.embeddings.LayerNorm,
        distances=body.encoder.relative_attention_bias.weight[buckets],
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        layers=tuple(layers),
        pooler=head.dense,
        pooled=torch.tanh,
        classifier=head.out_proj,
    )


def _embeddings(embeddings: nn.Module) -> dict[str, Any]:
    """Read words, positions and types; a type that all tokens have is a part of the positions."""
    types, positions = embeddings.token_type_embeddings.weight, embeddings.position_embeddings.weight
    single = len(types) == 1
    return {
        "words": embeddings.word_embeddings.weight,
        "positions": positions + types[0] if single else positions,
        "types": None if single else types,
        "norm": embeddings.LayerNorm,
    }


def _encoder(body: nn.Module) -> dict[str, Any]:
    """Read the layers of a model that names its modules as BERT does."""
    layers = (
        LayerParts(
            query=layer.attention.self.query,
            key=layer.attention.self.key,
            value=layer.attention.self.value,
            project=layer.attention.output.dense,
            attention_norm=layer.attention.output.LayerNorm,
            expand=layer.intermediate.dense,
            contract=layer.output.dense,
            output_norm=layer.output.LayerNorm,
        )
        for layer in body.encoder.layer
    )
    return {
        "heads": body.config.num_attention_heads,
        "activation": body.config.hidden_act,
        "layers": tuple(layers),
    }


ADAPTERS: dict[type[nn.Module], Callable[[Any], Parts]] = {
    BertForSequenceClassification: _bert,
    CamembertForSequenceClassification: _roberta,
    DistilBertForSequenceClassification: _distilbert,
    ElectraForSequenceClassification: _electra,
    MPNetForSequenceClassification: _mpnet,
    RobertaForSequenceClassification: _roberta,
    XLMRobertaForSequenceClassification: _roberta,
}


def parts(model: nn.Module, labels: int = 1) -> Parts:
    """Return the weights of a model; ValueError if it is not one that the flat computation stands for."""
    reason = unsupported(model, labels)
    if reason:
        raise ValueError(f"no flat graph for this model: {reason}")
    with torch.no_grad():
        return ADAPTERS[type(model)](model)


def unsupported(model: nn.Module, labels: int = 1) -> str:
    """Say why a model has no flat form of so many logits, or return an empty string."""
    if type(model) not in ADAPTERS:
        return f"{type(model).__name__} is none of {', '.join(sorted(kind.__name__ for kind in ADAPTERS))}"
    config = model.config
    if config.num_labels != labels:
        return f"it has {config.num_labels} labels, and only the logit of a single one is relevance"
    if getattr(config, "is_decoder", False):
        return "it is a decoder, whose tokens do not see those that follow"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"its positions are {config.position_embedding_type}, not absolute"
    activation = ADAPTERS[type(model)](model).activation
    if activation not in ACTIVATIONS:
        return f"activation {activation} is none of {', '.join(ACTIVATIONS)}"
    return ""
