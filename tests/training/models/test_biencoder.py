"""The sentence encoder embeds a text alike whatever it is batched with."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training runs with the train extra")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from training.models.biencoder import BiEncoder


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer encoder with random weights and a word-level tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: row for row, word in enumerate(["[PAD]", "[UNK]", "red", "blue", "hose", "chair"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    BertModel(
        BertConfig(
            vocab_size=6, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
    ).save_pretrained(folder)
    return folder


def test_bi_encoder_scores_are_cosines_of_unit_vectors(encoder_folder: Path) -> None:
    """The query itself scores 1, and every score is a cosine."""
    encoder = BiEncoder(encoder_folder)
    scores = encoder.scores("red hose", ["red hose", "blue chair", "red hose red hose blue chair"])

    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert (np.abs(scores) <= 1 + 1e-6).all()


def test_bi_encoder_padding_does_not_move_an_embedding(encoder_folder: Path) -> None:
    """Mean pooling leaves padding out: a text embeds alike beside a long one."""
    encoder = BiEncoder(encoder_folder)
    together = encoder.embed(["red hose", "red hose blue chair red hose blue chair"])

    np.testing.assert_allclose(encoder.embed(["red hose"])[0], together[0], atol=1e-5)
