"""The baselines rank as they should, by corpus statistics and by meaning."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training runs with the train extra")
pytest.importorskip("bm25s", reason="training runs with the train extra")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from training.measure import baselines, metrics

CORPUS = [
    ("a", "red garden hose 20 m"),
    ("b", "garden chair"),
    ("c", "hose clamp steel"),
    ("d", "garden table"),
    ("e", "電池式ランタン"),
]


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


def test_random_order_is_the_floor() -> None:
    """Scoring by the random baseline gives the analytic floor of NDCG."""
    gains = [1.0, 0.1, 0.0, 0.0]

    assert metrics.random_ndcg(gains, 2) == metrics.ndcg(baselines.random_order(4), gains, 2)


def test_bm25_weighs_words_by_the_whole_corpus() -> None:
    """Which of two words counts more is decided by products outside the list."""
    hoses = [(f"hose{number}", "hose reel wheel") for number in range(9)]
    chair, clamp = baselines.Bm25(CORPUS).scores("garden hose", ["b", "c"])
    chair_among_hoses, clamp_among_hoses = baselines.Bm25([*CORPUS, *hoses]).scores("garden hose", ["b", "c"])

    assert clamp > chair > 0
    assert chair_among_hoses > clamp_among_hoses > 0


def test_bm25_score_does_not_depend_on_the_list() -> None:
    """A product's score is the same alone and among others."""
    index = baselines.Bm25(CORPUS)

    assert index.scores("garden hose", ["a"])[0] == index.scores("garden hose", ["d", "a", "b"])[1]


def test_bm25_matches_inside_unspaced_text() -> None:
    """A Japanese query finds the product although neither has spaces."""
    scores = baselines.Bm25(CORPUS).scores("ランタン", [product for product, _ in CORPUS])

    assert int(np.argmax(scores)) == 4
    assert np.count_nonzero(scores) == 1


def test_bm25_of_unknown_words_is_a_tie() -> None:
    """A query that shares no word with the corpus scores every product 0."""
    assert not baselines.Bm25(CORPUS).scores("!!! zzz", ["a", "b"]).any()


def test_bm25_refuses_unknown_and_repeated_products() -> None:
    """A product outside the corpus, or twice in it, is an error and no silent zero."""
    with pytest.raises(KeyError):
        baselines.Bm25(CORPUS).scores("hose", ["nope"])
    with pytest.raises(ValueError, match="twice"):
        baselines.Bm25([*CORPUS, CORPUS[0]])


def test_bi_encoder_scores_are_cosines_of_unit_vectors(encoder_folder: Path) -> None:
    """The query itself scores 1, and every score is a cosine."""
    encoder = baselines.BiEncoder(encoder_folder)
    scores = encoder.scores("red hose", ["red hose", "blue chair", "red hose red hose blue chair"])

    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert (np.abs(scores) <= 1 + 1e-6).all()


def test_bi_encoder_padding_does_not_move_an_embedding(encoder_folder: Path) -> None:
    """Mean pooling leaves padding out: a text embeds alike beside a long one."""
    encoder = baselines.BiEncoder(encoder_folder)
    together = encoder.embed(["red hose", "red hose blue chair red hose blue chair"])

    np.testing.assert_allclose(encoder.embed(["red hose"])[0], together[0], atol=1e-5)
