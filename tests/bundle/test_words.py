"""Ids looked up by word are those of the tokenizer for the whole text, whatever the text."""

import gzip
import json
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordPiece

from bundle import words
from bundle.words import TextTokens, pack_ids, reads_words_alone, unpack_ids

ROOT = Path(__file__).parents[2]
PRODUCTS = ROOT.parent / "shared" / "data" / "esci" / "products.jsonl.gz"


def served(name: str = "default") -> Tokenizer:
    """The tokenizer of a bundle of this repository, as the service sets it up."""
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / name / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def cased() -> Tokenizer:
    """The same vocabulary read otherwise: case and accents kept, nothing cleaned, no spaces around ideographs."""
    tokenizer = served()
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False
    )
    return tokenizer


STANDARD, KNOWN = served(), TextTokens(served())
STANDARD_CASED, KNOWN_CASED = cased(), TextTokens(cased())
# What separates, what is dropped, what joins, what is a letter in another script, and what looks like a token.
SPACES = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\x00\x7f\ufffd"
LETTERS = "ßẞıİſǅΣσςéñüåøđłkK\u0301\u0327\u0323\u093f\u200d\u3099かガ漢字한글각ไทยمرحبا🛒👍🏽-–—/·,.&™½²"  # noqa: RUF001  meant
WORDS = ("[SEP]", "[CLS]", "##ing", "e\u0323\u0307", "sofa", "iPhone15", "USB-C", "10x12")
ODD = st.sampled_from([*SPACES, *LETTERS, *WORDS])
TEXTS = st.one_of(st.lists(st.one_of(ODD, st.text(max_size=4)), max_size=12).map("".join), st.text())


@settings(max_examples=1500, deadline=None)
@given(TEXTS)
@example("a\x1cb c\x85d e\u2028f")
@example("q\u0307 \u0323x")
@example(" ".join(["sofa"] * 300))
@example("x" * 1_000)
def test_ids_are_those_of_the_whole_text(text: str) -> None:
    """Any text, odd Unicode included, has the ids that the tokenizer gives for all of it at once."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates never reach a tokenizer
    for tokens, standard in ((KNOWN, STANDARD), (KNOWN_CASED, STANDARD_CASED)):
        assert unpack_ids(tokens.of([text])(text)) == tuple(
            standard.encode(text, add_special_tokens=False).ids
        )


def test_every_character_of_the_first_planes_beside_a_space() -> None:
    """Every assigned character of the first two planes is the same before, behind and between spaces."""
    signs = [chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) not in {"Cs", "Cn"}]
    for start in range(0, len(signs), 500):
        texts = [f"a{sign} {sign}b {sign} c{sign}d" for sign in signs[start : start + 500]]
        found = KNOWN.of(texts)
        expected = STANDARD.encode_batch_fast(texts, add_special_tokens=False)

        assert [found(text) for text in texts] == [pack_ids(encoding.ids) for encoding in expected]


@pytest.mark.skipif(not PRODUCTS.is_file(), reason="the judged data sets are not beside this checkout")
def test_real_texts_in_three_languages() -> None:
    """Products in English, Spanish and Japanese have the same ids either way."""
    with gzip.open(PRODUCTS, "rt", encoding="utf-8") as lines:
        products = [json.loads(line) for line in lines]
    texts = [
        each[name] for each in products for name in ("title", "bullets", "description", "brand", "color")
    ]
    assert {each["locale"] for each in products} == {"us", "es", "jp"}
    found = KNOWN.of(texts)
    expected = STANDARD.encode_batch_fast(texts, add_special_tokens=False)

    assert all(found(text) == pack_ids(encoding.ids) for text, encoding in zip(texts, expected, strict=True))


def test_words_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many words come, no more than the bound are held, a very long one never, and ids stay right."""
    monkeypatch.setattr(words, "MOST_WORDS", 50)
    tokens = TextTokens(STANDARD)
    rng = random.Random(1)  # noqa: S311  not for secrets
    for _ in range(40):
        text = " ".join("".join(rng.choices("abcdef", k=4)) for _ in range(20)) + " " + "y" * 100

        assert unpack_ids(tokens.of([text])(text)) == tuple(
            STANDARD.encode(text, add_special_tokens=False).ids
        )
        held = tokens._words
        assert held is not None
        assert 0 < len(held) <= 50
        assert max(map(len, held)) <= words.LONGEST_WORD


def test_other_tokenizers_are_asked_for_the_whole_text() -> None:
    """Byte-level BPE reads the space before a word as part of it, so its words are not looked up."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()

    assert not reads_words_alone(tokenizer)
    assert TextTokens(tokenizer).of(["red sofa", "sofa", "red sofa"])("red sofa") == pack_ids(
        tokenizer.encode("red sofa").ids
    )


def test_an_added_token_with_a_space_is_found() -> None:
    """A token that was added may hold a space; such a tokenizer reads whole texts."""
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "new": 1, "york": 2}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    assert reads_words_alone(tokenizer)
    tokenizer.add_tokens([AddedToken("new york", normalized=True)])

    assert not reads_words_alone(tokenizer)
    assert TextTokens(tokenizer).of(["new york"])("new york") == pack_ids([3])


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_shipped_tokenizers_are_read_by_words(name: str) -> None:
    """The tokenizers of the shipped bundles take the fast way."""
    assert reads_words_alone(served(name))
    assert json.loads(served(name).to_str())["model"]["type"] == "WordPiece"
