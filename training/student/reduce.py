"""Make a smaller BERT body out of a larger one: fewer layers, fewer hidden units, fewer heads.

Knows BERT weights and the states of a body; does not know relevance.
Invariant: the smaller body starts from the larger one's own weights, at the units that carry most of its states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import SequenceClassifierOutput

Feeds = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays: hidden units in ascending order and, by kept layer, heads and feed-forward units."""

    hidden: Tensor  # [hidden]
    heads: tuple[Tensor, ...]  # each [heads]
    inner: tuple[Tensor, ...]  # each [4 * hidden]


@torch.no_grad()
def most_active(body: BertModel, batches: Iterable[Feeds], layers: Sequence[int], hidden: int) -> Kept:
    """Choose the units of `body` with the largest mean absolute state over the real tokens of `batches`.

    A head counts by the states it hands to its output projection, a feed-forward unit by its activation times
    the norm of its outgoing weights. Heads keep their size, so `hidden` is a multiple of it.
    """
    config = body.config
    stream = torch.zeros(config.hidden_size)
    heads = [torch.zeros(config.num_attention_heads) for _ in layers]
    inner = [torch.zeros(config.intermediate_size) for _ in layers]
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            seen[name] = inputs[0]

        return hook

    hooks = []
    for place, number in enumerate(layers):
        layer = body.encoder.layer[number]
        hooks.append(layer.attention.output.dense.register_forward_hook(watch(f"heads {place}")))
        hooks.append(layer.output.dense.register_forward_hook(watch(f"inner {place}")))
    for feeds in batches:
        real = feeds["attention_mask"].bool()
        states = body(**feeds, output_hidden_states=True).hidden_states
        stream += sum(state[real].abs().sum(dim=0) for state in states)
        for place in range(len(layers)):
            out = seen[f"heads {place}"][real].abs().sum(dim=0)
            heads[place] += out.reshape(config.num_attention_heads, -1).sum(dim=1)
            inner[place] += seen[f"inner {place}"][real].abs().sum(dim=0)
    for hook in hooks:
        hook.remove()
    head_size = config.hidden_size // config.num_attention_heads
    for place, number in enumerate(layers):
        inner[place] *= body.encoder.layer[number].output.dense.weight.norm(dim=0)
    return Kept(
        _largest(stream, hidden),
        tuple(_largest(each, hidden // head_size) for each in heads),
        tuple(_largest(each, 4 * hidden) for each in inner),
    )


def _largest(values: Tensor, count: int) -> Tensor:
    return values.topk(count).indices.sort().values


@torch.no_grad()
def reduced(body: BertModel, layers: Sequence[int], kept: Kept) -> BertModel:
    """Return a new body of the chosen layers, with the weights of `body` at the kept units."""
    config = body.config
    width, size = len(kept.hidden), config.hidden_size // config.num_attention_heads
    shape = {
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // size,
        "intermediate_size": 4 * width,
    }
    small = BertModel(BertConfig(**config.to_dict() | shape), add_pooling_layer=False)
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        table = getattr(body.embeddings, name).weight
        getattr(small.embeddings, name).weight.copy_(table[:, kept.hidden])
    _copy(small.embeddings.LayerNorm, body.embeddings.LayerNorm, kept.hidden)
    for layer, number, heads, inner in zip(small.encoder.layer, layers, kept.heads, kept.inner, strict=True):
        source = body.encoder.layer[number]
        places = (heads[:, None] * size + torch.arange(size)).flatten()
        for name in ("query", "key", "value"):
            _copy(
                getattr(layer.attention.self, name), getattr(source.attention.self, name), places, kept.hidden
            )
        _copy(layer.attention.output.dense, source.attention.output.dense, kept.hidden, places)
        _copy(layer.attention.output.LayerNorm, source.attention.output.LayerNorm, kept.hidden)
        _copy(layer.intermediate.dense, source.intermediate.dense, inner, kept.hidden)
        _copy(layer.output.dense, source.output.dense, kept.hidden, inner)
        _copy(layer.output.LayerNorm, source.output.LayerNorm, kept.hidden)
    return small


def _copy(target: nn.Module, source: nn.Module, rows: Tensor, columns: Tensor | None = None) -> None:
    weight = source.weight[rows]
    target.weight.copy_(weight if columns is None else weight[:, columns])
    target.bias.copy_(source.bias[rows])


class StateDistance(nn.Module):
    """How far a small body's token states are from a larger one's, after a learnt linear map.

    Layer i of the small body answers to layer layers[i] of the larger one, its embeddings to the embeddings.
    """

    def __init__(self, small: BertModel, large: BertModel, layers: Sequence[int]) -> None:
        """Take both bodies; the larger one is frozen."""
        super().__init__()
        self.small, self.large = small, large.eval().requires_grad_(requires_grad=False)
        self.told = [0, *(number + 1 for number in layers)]
        self.maps = nn.ModuleList(
            nn.Linear(small.config.hidden_size, large.config.hidden_size) for _ in self.told
        )

    def train(self, mode: bool = True) -> StateDistance:  # noqa: FBT001, FBT002 - torch's signature
        """Switch the small body and the maps; the larger body stays in evaluation mode."""
        super().train(mode)
        self.large.eval()
        return self

    def forward(self, **inputs: Tensor) -> SequenceClassifierOutput:
        """Return as `logits` [n, 1] each row's mean squared distance over its real tokens, states and units."""
        real = inputs["attention_mask"].unsqueeze(-1).float()
        with torch.no_grad():
            wanted = self.large(**inputs, output_hidden_states=True).hidden_states
        states = self.small(**inputs, output_hidden_states=True).hidden_states
        rows = torch.zeros(len(real), device=real.device)
        for state, place, to_large in zip(states, self.told, self.maps, strict=True):
            apart = (to_large(state) - wanted[place]).square() * real
            rows = rows + apart.sum(dim=(1, 2)) / (real.sum(dim=(1, 2)) * apart.shape[-1])
        return SequenceClassifierOutput(logits=(rows / len(self.told)).unsqueeze(1))
