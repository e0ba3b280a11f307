"""The layout of an int8 graph: found where the graph is a plain encoder, and computed natively to the same logits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import transformers  # noqa: E402

from bundle import read_bundle  # noqa: E402
from bundle.rows import Row, Rows, assemble  # noqa: E402
from bundle.words import pack_ids  # noqa: E402
from service.native.session import NativeSession, why_not  # noqa: E402
from tests.service.support import ROOT  # noqa: E402
from training.export.export import to_onnx  # noqa: E402
from training.export.flat import FlatBert  # noqa: E402
from training.export.int8 import quantize  # noqa: E402
from training.export.layout import encoder_layout  # noqa: E402
from training.models.runtime import OrtSession  # noqa: E402

CONTRACT = read_bundle(ROOT / "models", "tiny").manifest.text
SIZES = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 192, "num_hidden_layers": 3}


def _rows() -> list[Row]:
    draws = np.random.default_rng(3)
    lengths = draws.integers(4, 49, 60)
    return [
        Row(pack_ids(draws.integers(0, 2_000, n).tolist()), int(n) // 3, truncated=False) for n in lengths
    ]


def _graph(model: torch.nn.Module, *, fused: bool = True) -> bytes:
    torch.manual_seed(2)
    for parameter in model.parameters():  # as after training: biases and norms that count
        parameter.data += 0.05 * torch.randn_like(parameter)
    flat = to_onnx(FlatBert(model.eval(), fused=fused).eval(), 20).SerializeToString()
    return quantize(flat, _rows(), CONTRACT)


def _bert(**changed: object) -> torch.nn.Module:
    torch.manual_seed(1)
    config = transformers.BertConfig(vocab_size=2_000, num_labels=1, **SIZES, **changed)
    return transformers.BertForSequenceClassification(config)


def _distilbert() -> torch.nn.Module:
    torch.manual_seed(1)
    config = transformers.DistilBertConfig(
        vocab_size=2_000, num_labels=1, dim=128, n_heads=2, hidden_dim=256, n_layers=2
    )
    return transformers.DistilBertForSequenceClassification(config)


@pytest.mark.parametrize(
    "model",
    [_bert(), _bert(hidden_act="relu", layer_norm_eps=1e-5), _distilbert()],
    ids=["bert", "relu", "distilbert"],
)
def test_native_logits_are_those_of_the_graph(model: torch.nn.Module) -> None:
    """Whatever the activations, heads and types, the layout says all that there is to know."""
    graph = _graph(model)
    layout = encoder_layout(graph)
    assert layout is not None
    if reason := why_not(layout):
        pytest.skip(reason)
    rows = _rows()
    session = OrtSession(graph)
    exact = np.concatenate([session.run(assemble([row], CONTRACT.template)) for row in rows])
    ours = NativeSession(layout, graph).run_rows(Rows.of(rows), type_ids=True)

    assert np.abs(ours - exact).max() < 0.05 * exact.std()


def test_other_graphs_have_none() -> None:
    """Products in place of the attention operator, other positions, distances: computed as they are, by the runtime."""
    torch.manual_seed(1)
    roberta = transformers.RobertaConfig(vocab_size=2_000, num_labels=1, max_position_embeddings=80, **SIZES)
    mpnet = transformers.MPNetConfig(vocab_size=2_000, num_labels=1, max_position_embeddings=80, **SIZES)

    assert encoder_layout(_graph(_bert(), fused=False)) is None
    assert encoder_layout(_graph(transformers.RobertaForSequenceClassification(roberta))) is None
    assert encoder_layout(_graph(transformers.MPNetForSequenceClassification(mpnet))) is None
    assert encoder_layout(to_onnx(FlatBert(_bert().eval()).eval(), 20).SerializeToString()) is None
