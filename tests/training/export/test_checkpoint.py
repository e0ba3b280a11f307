"""The checkpoint that is read back out of a bundle computes what the bundle's graph computes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bundle import Bundle, PairEncoder, read_bundle
from bundle.rows import assemble

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from transformers import BertConfig, BertForSequenceClassification  # noqa: E402  after the question for torch

from training.data.golden import golden_pairs  # noqa: E402  as above
from training.export.checkpoint import read_graph, write_checkpoint  # noqa: E402  as above
from training.export.export import to_onnx  # noqa: E402  as above
from training.export.flat import FlatBert  # noqa: E402  as above
from training.models.runtime import OrtSession  # noqa: E402  as above

OPSET = 20
MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    """The default bundle, which has an int8 graph alone."""
    return read_bundle(MODELS, "default")


@pytest.mark.parametrize("fused", [False, True])
def test_an_fp32_graph_gives_back_its_weights(*, fused: bool) -> None:
    """What the export folded and merged is undone: every tensor of the original is there again."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for weights in model.parameters():  # as trained ones are: a graph keeps equal tensors only once
            weights.add_(torch.randn_like(weights), alpha=0.1)
    tensors, told = read_graph(to_onnx(FlatBert(model, fused=fused).eval(), OPSET).SerializeToString())
    wanted = {name: value.numpy() for name, value in model.state_dict().items() if "position_ids" not in name}

    assert wanted.keys() == tensors.keys()
    assert all(np.allclose(wanted[name], tensors[name], atol=1e-7) for name in wanted)
    assert (3, 3, 24, 40, 50) == tuple(
        told[name]
        for name in (
            *("num_hidden_layers", "num_attention_heads", "hidden_size"),
            *("intermediate_size", "vocab_size"),
        )
    )


def test_an_int8_graph_differs_by_its_activations_alone(shipped: Bundle, tmp_path: Path) -> None:
    """Torch on the checkpoint of the shipped bundle scores real lists as the int8 engine does, to its rounding."""
    write_checkpoint(shipped, tmp_path)
    model = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    contract = shipped.manifest.text
    encoder = PairEncoder(shipped.files[shipped.manifest.tokenizer], contract)
    feeds = assemble(
        [encoder.encode(query, [product])[0] for query, product in golden_pairs()], contract.template
    )
    with torch.no_grad():
        logits = (
            model(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits[:, 0].numpy()
        )
    engine = OrtSession(shipped.files[shipped.manifest.graph(None).file]).run(feeds)

    assert 0.999 < np.corrcoef(logits, engine)[0, 1]
    assert np.abs(logits - engine).max() < 0.15 * logits.std()


def test_the_tokenizer_comes_with_what_libraries_look_for(shipped: Bundle, tmp_path: Path) -> None:
    """The folder says at how many tokens a pair is cut, and which token pads."""
    write_checkpoint(shipped, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))

    assert shipped.manifest.text.max_length == config["model_max_length"]
    assert "[PAD]" == config["pad_token"]
    assert "token_type_ids" in config["model_input_names"]


def test_another_graph_is_refused() -> None:
    """A graph without the names of the flat BERT is named as what it is, not read as if it were one."""
    graph = onnx.helper.make_graph([], "other", [], [])

    with pytest.raises(ValueError, match="not the graph of a flat BERT"):
        read_graph(onnx.helper.make_model(graph).SerializeToString())
