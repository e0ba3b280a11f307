"""Weights come from the model's files, every one of them, or the model is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.training.importing.folders import LENGTH, edit_json, save_folder  # noqa: E402
from training.errors import StageError  # noqa: E402
from training.importing.folder import read_source  # noqa: E402
from training.importing.model import load, positions_of  # noqa: E402

WEIGHTS = "model.safetensors"
MODULES = "sentence_transformers.models."


def _refusal(folder: Path) -> str:
    with pytest.raises(StageError) as found:
        load(read_source(folder, "mine"))
    return str(found.value)


def _headed(folder: Path, **changes: object) -> Path:
    """Give a BERT's body a head in modules of its own, as version 5 of sentence-transformers writes them."""
    save_folder(folder, "bert")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [
        {"idx": k, "path": path, "type": MODULES + kind} for k, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(str(modules).replace("'", '"'))
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    edit_json(
        folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False
    )
    told = {"in_features": 24, "out_features": 1, "activation_function": "torch.nn.modules.linear.Identity"}
    edit_json(folder / "2_Dense" / "config.json", **told | {"module_output_name": "scores"} | changes)
    save_file(
        {"linear.weight": torch.ones(1, 24), "linear.bias": torch.zeros(1)}, folder / "2_Dense" / WEIGHTS
    )
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_positions_are_those_that_a_row_may_have(kind: str, tmp_path: Path) -> None:
    """Where positions are counted from the padding's on, the first ones are no row's."""
    source = read_source(save_folder(tmp_path / kind, kind), kind)

    assert positions_of(source, load(source)) == LENGTH


def test_a_head_that_is_not_in_the_weights(tmp_path: Path) -> None:
    """A classifier that the files lack would be drawn at random."""
    folder = save_folder(tmp_path / "bert", "bert")
    kept = {name: value for name, value in load_file(folder / WEIGHTS).items() if "classifier" not in name}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})

    assert "lacks the weights of its head (classifier.bias, classifier.weight)" in _refusal(folder)


def test_a_layer_that_is_not_in_the_weights(tmp_path: Path) -> None:
    """One missing layer is enough."""
    folder = save_folder(tmp_path / "bert", "bert")
    kept = {name: value for name, value in load_file(folder / WEIGHTS).items() if "layer.1." not in name}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})

    assert "lacks weights (bert.encoder.layer.1" in _refusal(folder)


@pytest.mark.parametrize("content", [None, b"", b"broken"])
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A file that is cut short or absent is one line."""
    folder = save_folder(tmp_path / "bert", "bert")
    (folder / WEIGHTS).unlink()
    if content is not None:
        (folder / WEIGHTS).write_bytes(content)

    assert "cannot be loaded" in _refusal(folder)


def test_a_head_in_modules_of_its_own(tmp_path: Path) -> None:
    """The first token's state goes through the head; as older versions wrote it, too."""
    model = load(read_source(_headed(tmp_path / "bert"), "mine"))
    ids = torch.tensor([[2, 7, 3]])
    states = model.body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state

    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    assert logits[0, 0].item() == pytest.approx(states[0, 0].sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"activation_function": "custom.Activation"}, "Activation"),
        ({"in_features": 12}, "are not those of its config"),
        ({"in_features": None}, "broken"),
        ({"module_input_name": "token_embeddings"}, "token_embeddings"),
    ],
)
def test_a_head_that_is_not_understood(tmp_path: Path, change: dict[str, object], told: str) -> None:
    """What a module would compute otherwise than it says is refused."""
    assert told in _refusal(_headed(tmp_path / "bert", **change))


def test_pooling_that_is_not_understood(tmp_path: Path) -> None:
    """The first token or the mean are known."""
    folder = _headed(tmp_path / "bert")
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="lasttoken")

    assert "expected Pooling by cls or mean" in _refusal(folder)


def test_a_head_whose_weights_are_gone(tmp_path: Path) -> None:
    """A module without its file is one line."""
    folder = _headed(tmp_path / "bert")
    (folder / "2_Dense" / WEIGHTS).unlink()

    assert "cannot be read" in _refusal(folder)
