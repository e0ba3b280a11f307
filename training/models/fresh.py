"""A body with random weights and a tokenizer trained on the texts at hand, for runs without pretrained ones.

Knows BERT's configuration and WordPiece; does not know what is trained.
Invariant: the same texts give the same tokenizer, in every process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from training.sections.models import FRESH_POSITIONS, FreshRecipe

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _vocabulary(words: Counter[str], size: int) -> dict[str, int]:
    """Number the special tokens, every character, then the commonest words; ties go by the alphabet.

    >>> list(_vocabulary(Counter({"ab": 2, "b": 1}), 10))[len(SPECIALS) :]
    ['a', 'b', '##a', '##b', 'ab']
    """
    characters = sorted(set().union(*words))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    pieces = dict.fromkeys([*SPECIALS, *characters, *(f"##{char}" for char in characters), *ranked])
    return {piece: number for number, piece in enumerate(islice(pieces, size))}


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Make a lower-casing WordPiece tokenizer with BERT's pair template; the same texts give the same one.

    The library's own WordPiece trainer numbers its pieces differently in every process.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    tokenizer = Tokenizer(models.WordPiece(_vocabulary(words, vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    inputs = ["input_ids", "token_type_ids", "attention_mask"]  # not said, it would tell no types
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def fresh_body(
    texts: Iterable[str], shape: FreshRecipe
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """Return a random BERT classifier of one logit and a tokenizer trained on the texts."""
    tokenizer = train_tokenizer(texts, shape.vocabulary)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=FRESH_POSITIONS,
        num_labels=1,
        hidden_dropout_prob=0.0,  # so small a body has nothing to spare: with dropout it learns half as fast
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config), tokenizer
