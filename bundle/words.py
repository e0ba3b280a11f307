"""Texts to token ids, a word at a time where that is the same.

Knows tokenizers and which of them read each word by itself; does not know fields, limits or pairs.
Invariant: ids are those of the tokenizer for the whole text, without special tokens.

A shop's texts are made of few words, said again and again: looking each up is eight times as fast as tokenizing.
BERT's tokenizer breaks a text at white space before anything else, and cleans, lowers and strips accents character
by character, so that what stands between two spaces has the same ids in any text.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from struct import pack, unpack
from typing import Final

from tokenizers import Tokenizer
from tokenizers.models import Unigram

MOST_WORDS: Final = 65_536  # about 16 MB; when it is full it is filled anew
LONGEST_WORD: Final = 64  # characters; longer ones are not kept

TokensOf = Callable[[str], bytes]
"""Gives the ids of a text as `pack_ids` writes them."""

TOKEN_BYTES: Final = 4


class TextTokens:
    """The token ids of texts; safe to share between threads."""

    __slots__ = ("_are_joined", "_tokenizer", "_words")

    def __init__(self, tokenizer: Tokenizer, *, are_joined: bool = False) -> None:
        """Use a tokenizer as it is set up, whose settings must not change from here on.

        `are_joined` says that texts have something put before them that those who ask do not know of.
        """
        self._tokenizer = tokenizer
        self._are_joined = are_joined
        self._words = _Words(tokenizer) if reads_words_alone(tokenizer) else None

    @property
    def reads_words_alone(self) -> bool:
        """Whether a product's ids are those of the words of its fields, one after the other."""
        return self._words is not None and not self._are_joined

    def of(self, texts: Iterable[str]) -> TokensOf:
        """Return what gives the ids of each of the texts."""
        if self._words is not None:
            return self._words.of_text
        distinct = list(dict.fromkeys(texts))
        encodings = self._tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
        packed = (pack_ids(encoding.ids) for encoding in encodings)
        return dict(zip(distinct, packed, strict=True)).__getitem__


class _Words(dict[str, bytes]):
    """Ids of words, made when first asked for; two threads may both make the same."""

    __slots__ = ("_tokenizer",)

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def of_text(self, text: str) -> bytes:
        """Return the ids of a text's words, one after the other."""
        return b"".join(map(self.__getitem__, text.replace("\n", " ").split(" ")))

    def __missing__(self, word: str) -> bytes:
        ids = pack_ids(self._tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


def pack_ids(ids: Sequence[int]) -> bytes:
    """Return token ids as int32 in the machine's byte order.

    Rows are made of these: joining bytes touches a hundredth of the objects that lists of numbers are.
    """
    return pack(f"{len(ids)}i", *ids)


def unpack_ids(packed: bytes) -> tuple[int, ...]:
    """Return the ids that `pack_ids` wrote."""
    return unpack(f"{len(packed) // TOKEN_BYTES}i", packed)


def reads_words_alone(tokenizer: Tokenizer) -> bool:
    """Whether a text's ids are those of its words one after the other: of the tokenizers known here, BERT's.

    A token that was added and is not special could stand for text with a space in it.
    """
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    added = [token for token in parts["added_tokens"] if not token["special"]]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and not added


def find_unknown_id(tokenizer: Tokenizer, tokenizer_json: bytes) -> int | None:
    """Return the id of the token that stands for text without a piece, if the tokenizer has one."""
    if isinstance(tokenizer.model, Unigram):  # the only model whose binding does not tell it
        unknown_id: int | None = json.loads(tokenizer_json)["model"].get("unk_id")
        return unknown_id
    token: str | None = tokenizer.model.unk_token
    return None if token is None else tokenizer.token_to_id(token)
