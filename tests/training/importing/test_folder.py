"""What is no cross-encoder is refused in one line that says what to do, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from tests.training.importing.folders import edit_json, save_folder
from training.importing.folder import read_source

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder; nobody may write to it."""
    return save_folder(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    copy = tmp_path / "bert"
    copy.mkdir()
    for path in bert.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def imported(refused: Refused, tmp_path: Path) -> Callable[..., str]:
    """Import a model that is refused, and hold it to leaving nothing behind; returns the line."""

    def run(model: object, *options: str) -> str:
        line = refused("import", str(model), "--name", "mine", "--out", str(tmp_path / "out"), *options)
        assert not (tmp_path / "out").exists()
        return line

    return run


def test_a_hub_id_that_cannot_be_had(imported: Refused) -> None:
    """Without a hub the line says how to name a local folder."""
    assert "--weights DIR" in imported("cross-encoder/ms-marco-MiniLM-L6-v2")


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there(imported: Refused, model: str) -> None:
    """A path is not looked for on the hub."""
    assert "is no folder" in imported(model)


def test_weights_that_are_not_there(imported: Refused) -> None:
    """A folder that is named for a hub id has to exist."""
    assert "is no folder" in imported("cross-encoder/some", "--weights", "/nowhere")


def test_a_folder_without_a_config(imported: Refused, tmp_path: Path) -> None:
    """Any other folder is told from a model's."""
    (tmp_path / "other").mkdir()

    assert "config.json" in imported(tmp_path / "other")


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_broken_config(imported: Refused, folder: Path, content: str) -> None:
    """A file that was cut short is named."""
    (folder / "config.json").write_text(content)

    assert "config.json is broken" in imported(folder)


def test_a_sentence_encoder(imported: Refused, folder: Path) -> None:
    """What embeds each text by itself has no head; the line says what it can be used for."""
    edit_json(folder / "config.json", architectures=["BertModel"])
    edit_json(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")

    assert "sentence encoder" in imported(folder)


def test_an_older_sentence_encoder(imported: Refused, folder: Path) -> None:
    """Before there were types of models, pooling without a head after it told a sentence encoder."""
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    modules = [{"idx": k, "path": ["", "1_Pooling"][k], "type": kind} for k, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(str(modules).replace("'", '"'))

    assert "sentence encoder" in imported(folder)


@pytest.mark.parametrize("content", ["{", "{}", "[1]", "[]", '[{"type": "x.Pooling", "path": ""}]'])
def test_broken_modules(imported: Refused, folder: Path, content: str) -> None:
    """The list of modules has to be one that begins with the transformer."""
    (folder / "modules.json").write_text(content)

    assert "modules.json" in imported(folder)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("BertModel", "no head"),
        ("BertForMaskedLM", "no head"),
        ("Qwen3ForCausalLM", "language model"),
        ("", "no head"),
    ],
)
def test_weights_without_a_head(imported: Refused, folder: Path, architecture: str, told: str) -> None:
    """A body, a language model and a folder that does not say what it is are refused for want of a head."""
    edit_json(folder / "config.json", architectures=[architecture] if architecture else None)

    assert told in imported(folder)


def test_another_architecture(imported: Refused, folder: Path) -> None:
    """The line names the architectures that there are."""
    edit_json(folder / "config.json", architectures=["AlbertForSequenceClassification"], model_type="albert")

    assert "xlm-roberta" in imported(folder)


def test_a_prompt(imported: Refused, folder: Path) -> None:
    """A model that wants words before its texts would score wrongly without them."""
    edit_json(
        folder / "config_sentence_transformers.json",
        model_type="CrossEncoder",
        prompts={"rank": "Query: "},
        default_prompt_name="rank",
    )

    assert "prompt" in imported(folder)


def test_what_older_and_newer_files_say(folder: Path) -> None:
    """The activation, the length and the names of classes are read wherever versions have put them."""
    edit_json(folder / "config.json", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    edit_json(folder / "sentence_bert_config.json", max_seq_length=48, do_lower_case=True)
    older = read_source(folder, "m")
    edit_json(
        folder / "config_sentence_transformers.json", activation_fn="torch.nn.modules.activation.Sigmoid"
    )
    newer = read_source(folder, "m")

    assert (older.activation, older.longest, older.lowers) == ("Identity", 48, True)
    assert newer.activation == "Sigmoid"
    assert newer.names == ("LABEL_0",)
