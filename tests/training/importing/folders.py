"""Folders of small random cross-encoders, as transformers and sentence-transformers write them.

Knows the tokenizer classes of each architecture, with small vocabularies; does not know how a folder is imported.
Invariant: the same name gives the same weights and the same tokenizer, and a pair's logit tells it from others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    DistilBertTokenizer,
    ElectraTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from bundle.text import Product
from tests.training.families import make
from training.data.golden import golden_pairs
from training.data.synthetic import judged_pairs

LENGTH = 512  # tokens of a pair
VOCABULARY = 1100  # rows of the model: enough for tables of words to be made int8
WORDS = sorted(
    {
        word
        for row in judged_pairs(0, 20)
        for word in f"{row['query']} {row['title']} {row['description']}".replace(".", "")
        .replace(",", "")
        .split()
    }
    | {"garden", "hose", "green", "Expandable", "15", "m"}
)
CHARS = sorted({char for word in WORDS for char in word} | set("abcdefghijklmnopqrstuvwxyz0123456789.,|-"))


def _wordpiece(specials: list[str]) -> dict[str, int]:
    words = [word.lower() for word in WORDS]
    pieces = dict.fromkeys([*specials, *CHARS, *(f"##{char}" for char in CHARS), *words])
    return {piece: number for number, piece in enumerate(pieces)}


def _unigram(specials: list[str]) -> list[tuple[str, float]]:
    """Return pieces with scores; a word costs less than its characters."""
    pieces = [("▁", -5.0), *((char, -8.0) for char in CHARS), *((f"▁{word}", -6.0) for word in WORDS)]
    known = dict.fromkeys(name for name, _ in pieces)
    return [*((name, 0.0) for name in specials if name not in known), *dict(pieces).items()]


def _byte_level(specials: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    told = json.loads(tokenizer.to_str())["model"]
    return told["vocab"], [tuple(pair) for pair in told["merges"]]


def _roberta() -> Any:
    vocabulary, merges = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return RobertaTokenizer(vocab=vocabulary, merges=merges)


def _modernbert() -> Any:
    """A tokenizer of the class that ModernBERT's folders name, with its runs of spaces as tokens."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    vocabulary, merges = _byte_level(specials)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(["  ", "   ", "    "])
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(names, specials, strict=True)),
    )


BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    "bert": lambda: BertTokenizer(vocab=_wordpiece(BERT)),
    "distilbert": lambda: DistilBertTokenizer(vocab=_wordpiece(BERT)),
    "electra": lambda: ElectraTokenizer(vocab=_wordpiece(BERT)),
    "mpnet": lambda: MPNetTokenizer(vocab=_wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])),
    "roberta": _roberta,
    "camembert": lambda: CamembertTokenizer(vocab=_unigram(FAIRSEQ)),
    "xlm-roberta": lambda: XLMRobertaTokenizer(vocab=_unigram(FAIRSEQ)),
    "deberta": lambda: DebertaV2Tokenizer(vocab=_unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])),
    "modernbert": _modernbert,
}
COUNTED = {"mpnet", "roberta", "camembert", "xlm-roberta"}  # positions from the padding's on


def tokenizer_of(kind: str, *, padding_side: str = "right") -> Any:
    """The tokenizer of an architecture, as its folders have it."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.model_max_length, tokenizer.padding_side = LENGTH, padding_side
    return tokenizer


def model_of(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """The model of an architecture, two layers deep, with places for `LENGTH` tokens."""
    places = LENGTH + (tokenizer.pad_token_id + 1 if kind in COUNTED else 0)
    told = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": places,
        "pad_token_id": tokenizer.pad_token_id,
    }
    told |= {"n_layers": 2} if kind == "distilbert" else {"num_hidden_layers": 2}
    told |= {"local_attention": 16} if kind == "modernbert" else {}
    return make(kind, **told | changes)


def save_folder(folder: Path, kind: str, *, padding_side: str = "right", **changes: Any) -> Path:
    """Write a cross-encoder as transformers does."""
    tokenizer = tokenizer_of(kind, padding_side=padding_side)
    model_of(kind, tokenizer, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file, or make one."""
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(told | changes))


PRODUCTS = [
    *(product for _, product in golden_pairs()[:8]),
    Product(title="Ünïcode  Tasche, 2 St.", brand="Grün & Söhne"),
    Product(title="園芸用ホース 15メートル 緑", color="緑"),
    Product(brand="Norvik", color="red"),
    Product(text="A plain text: garden hose, green"),
    Product(title="red shoes " * 400, brand="lost"),
    Product(),
]
QUERIES = ["garden hose 15m", "Running shoes, RED", "ホース"]
