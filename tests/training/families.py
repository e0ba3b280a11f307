"""Small random models of every architecture that the flat graph stands for, and of some that it does not.

Knows the library's configurations; does not know the flat graph.
Invariant: the same name gives the same weights, and logits are of order one.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

VOCABULARY = 60
LONGEST = 40
SHAPE = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
PLACES = {"max_position_embeddings": LONGEST}
COUNTED = {
    "max_position_embeddings": LONGEST + 2,
    "pad_token_id": 1,
}  # places are counted from the padding id on
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
DISTIL = {"dim": 24, "n_layers": 3, "n_heads": 3, "hidden_dim": 48}

Make = Callable[[Any], PreTrainedModel]
FAMILIES: dict[str, tuple[Make, type[Any], dict[str, Any]]] = {
    "bert": (BertForSequenceClassification, BertConfig, SHAPE | PLACES),
    "bert-relu": (BertForSequenceClassification, BertConfig, SHAPE | PLACES | {"hidden_act": "relu"}),
    "bert-tanh": (BertForSequenceClassification, BertConfig, SHAPE | PLACES | {"hidden_act": "gelu_new"}),
    "bert-one-type": (BertForSequenceClassification, BertConfig, SHAPE | PLACES | {"type_vocab_size": 1}),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig, DISTIL | PLACES),
    "electra": (ElectraForSequenceClassification, ElectraConfig, SHAPE | PLACES | {"embedding_size": 24}),
    "electra-small": (
        ElectraForSequenceClassification,
        ElectraConfig,
        SHAPE | PLACES | {"embedding_size": 16},
    ),
    "mpnet": (MPNetForSequenceClassification, MPNetConfig, SHAPE | COUNTED),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, SHAPE | COUNTED | {"type_vocab_size": 1}),
    "xlm-roberta": (
        XLMRobertaForSequenceClassification,
        XLMRobertaConfig,
        SHAPE | COUNTED | {"type_vocab_size": 1, "hidden_act": "gelu_fast"},
    ),
    "camembert": (
        CamembertForSequenceClassification,
        CamembertConfig,
        SHAPE | COUNTED | {"type_vocab_size": 2},
    ),
}
OTHERS: dict[str, tuple[Make, type[Any], dict[str, Any]]] = {
    "modernbert": (ModernBertForSequenceClassification, ModernBertConfig, SHAPE | PLACES | MARKS),
    "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config, SHAPE | PLACES),
}


def make(name: str, **changes: Any) -> PreTrainedModel:
    """Return the model of that name, in evaluation mode, with changes to its configuration."""
    build, configure, settings = (FAMILIES | OTHERS)[name]
    torch.manual_seed(1)
    config = configure(**{"vocab_size": VOCABULARY, "num_labels": 1} | settings | changes)
    config._attn_implementation = "eager"
    model = build(config).eval()
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():  # norms and biases too: fresh ones are ones and zeros
            spread = 0.3 if weight.ndim > 1 else 0.1
            weight.add_(torch.randn(weight.shape, generator=draws) * spread)
    return model
