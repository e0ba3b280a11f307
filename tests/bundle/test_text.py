"""Rows of token ids: clipping, budgets, independence and hostile text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bundle.errors import TextContractMismatch, TokenizerInvalid, VocabularyMismatch
from bundle.manifest import FieldSpec, TextContract
from bundle.rows import Row
from bundle.text import PairEncoder, Product
from bundle.words import pack_ids
from tests.tiny import END, NASTY_PAIRS, PAD, START, UNKNOWN, text_contract, tokenizer_json

TOKENIZER = tokenizer_json()
CONTRACT = text_contract(TOKENIZER)
ENCODER = PairEncoder(TOKENIZER, CONTRACT)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=80)  # surrogates, NUL and all
PRODUCTS = st.builds(Product, **dict.fromkeys(Product._fields, TEXTS))


def _ids(text: str) -> list[int]:
    """Tokenize with a fresh tokenizer, whatever the encoder does."""
    tokenizer = Tokenizer.from_buffer(TOKENIZER)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _changed(**changes: object) -> TextContract:
    return TextContract.model_validate({**dict(CONTRACT), **changes})


def test_row_is_template_query_and_fields_in_order() -> None:
    """A row is prefix, query, middle, the contract's fields in the contract's order, suffix."""
    product = Product(color="red", title="trail shoes", brand="lamp", text="book", category="never read")

    (row,) = ENCODER.encode("rain boots", [product])

    assert list(row.ids) == [START, *_ids("rain boots"), END, *_ids("trail shoes lamp red book"), END]
    assert row == Row(row.packed, query_tokens=4, truncated=False)
    assert len(row) == 10


def test_no_products() -> None:
    """An empty list gives no rows."""
    assert list(ENCODER.encode("rain boots", [])) == []


def test_empty_texts() -> None:
    """Without any text the template is left."""
    assert list(ENCODER.encode("", [Product()])) == [
        Row(pack_ids((START, END, END)), query_tokens=2, truncated=False)
    ]


@given(TEXTS, st.lists(PRODUCTS, max_size=4))
def test_any_text_gives_rows_within_bounds(query: str, products: list[Product]) -> None:
    """No text crashes, no row is over max_length, and every id is in the vocabulary."""
    rows = ENCODER.encode(query, products)

    assert len(rows) == len(products)
    for row in rows:
        assert 3 <= len(row) <= CONTRACT.max_length
        assert row.query_tokens <= CONTRACT.query_max_tokens + 2
        assert row.ids[0] == START
        assert row.ids[row.query_tokens - 1] == row.ids[-1] == END
        assert all(0 <= token < CONTRACT.vocabulary for token in row.ids)


@given(TEXTS, st.lists(PRODUCTS, min_size=1, max_size=4))
def test_row_does_not_depend_on_its_batch_mates(query: str, products: list[Product]) -> None:
    """A pair gives the same row alone and in any list."""
    assert list(ENCODER.encode(query, products)) == [
        ENCODER.encode(query, [product])[0] for product in products
    ]


@given(TEXTS, PRODUCTS)
def test_query_part_does_not_depend_on_the_product(query: str, product: Product) -> None:
    """However long the product is, it never takes a token from the query."""
    (row,), (bare,) = ENCODER.encode(query, [product]), ENCODER.encode(query, [Product()])

    assert row.ids[: row.query_tokens] == bare.ids[: bare.query_tokens]


@given(TEXTS, PRODUCTS)
def test_truncated_says_whether_anything_was_lost(query: str, product: Product) -> None:
    """Under limits that nothing reaches the row is the same, or it says that it was truncated."""
    wide = PairEncoder(
        TOKENIZER,
        _changed(
            query_max_chars=10_000,
            query_max_tokens=2_000,
            max_length=8_192,
            fields=tuple(
                FieldSpec(name=field.name, max_chars=10_000, max_tokens=2_000) for field in CONTRACT.fields
            ),
        ),
    )
    (row,), (whole,) = ENCODER.encode(query, [product]), wide.encode(query, [product])

    assert not whole.truncated
    assert row.truncated or row.ids == whole.ids


@pytest.mark.parametrize(
    ("query", "product"),
    [
        ("mug " * 13, Product()),
        ("\0" * 121, Product()),
        ("mug", Product(title="mug " * 25)),
        ("mug", Product(brand="\0" * 61)),
        ("mug " * 12, Product(title="mug " * 24, description="mug " * 16)),
    ],
)
def test_every_kind_of_loss_is_reported(query: str, product: Product) -> None:
    """Characters or tokens of the query, of a field, or of the whole: all count as truncated."""
    assert ENCODER.encode(query, [product])[0].truncated


def test_each_field_is_cut_to_its_own_tokens() -> None:
    """A long title does not push out the brand."""
    (row,) = ENCODER.encode("mug", [Product(title="shoe " * 80, brand="lamp " * 10)])

    assert list(row.ids[row.query_tokens : -1]) == _ids("shoe " * 24 + "lamp " * 6)


def test_last_fields_lose_tokens_first() -> None:
    """What exceeds max_length is taken from the end of the product."""
    (row,) = ENCODER.encode("mug " * 12, [Product(title="shoe " * 24, description="lamp " * 16)])

    assert len(row) == CONTRACT.max_length
    assert list(row.ids[row.query_tokens : -1]) == _ids("shoe " * 24 + "lamp " * 9)


def test_characters_are_clipped_before_tokenizing() -> None:
    """What lies beyond max_chars is never seen, so a word across the clip is cut."""
    (row,) = ENCODER.encode("mug", [Product(brand=" " * 57 + "shoes")])

    assert list(row.ids[row.query_tokens : -1]) == _ids("sho")


def test_special_tokens_in_text_are_text() -> None:
    """A title cannot forge a separator or padding."""
    (row,) = ENCODER.encode("[CLS]", [Product(title="[SEP] [PAD] [UNK] [MASK]")])

    assert row.ids.count(START) == 1
    assert row.ids.count(END) == 2
    assert PAD not in row.ids
    assert UNKNOWN not in row.ids


def test_lone_surrogate_is_read_as_the_replacement_character() -> None:
    """What cannot be encoded is one unknown character, not a crash."""
    assert ENCODER.encode("\ud800", [Product(title="a \udfff")]) == ENCODER.encode(
        "\ufffd", [Product(title="a \ufffd")]
    )


@pytest.mark.parametrize("value", ["true", "false"])
def test_rows_do_not_depend_on_the_tokenizers_threads(value: str) -> None:
    """TOKENIZERS_PARALLELISM changes how fast rows come, not what they are."""
    code = (
        "from tests.tiny import *\n"
        "encoder = PairEncoder(tokenizer_json(), text_contract(tokenizer_json()))\n"
        "print([row.ids for row in encoder.encode('red shoes', [product for _, product in NASTY_PAIRS])])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TOKENIZERS_PARALLELISM": value},
        capture_output=True,
        check=True,
    ).stdout

    rows = ENCODER.encode("red shoes", [product for _, product in NASTY_PAIRS])
    assert printed.decode().strip() == str([row.ids for row in rows])


def test_unknown_text_version_is_refused() -> None:
    """A bundle made for another text function is not loaded."""
    with pytest.raises(TextContractMismatch):
        PairEncoder(TOKENIZER, _changed(version=2))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"\xff", TOKENIZER[:-1], TOKENIZER.replace(b"WordPiece", b"WordPeace")]
)
def test_file_that_is_no_tokenizer_is_refused(raw: bytes) -> None:
    """A tokenizer that does not load is one named error."""
    with pytest.raises(TokenizerInvalid):
        PairEncoder(raw, CONTRACT)


def test_tokenizer_with_more_ids_than_the_model_is_refused() -> None:
    """An id that the embedding table lacks is found at load, not at the first rare word."""
    with pytest.raises(VocabularyMismatch):
        PairEncoder(TOKENIZER, _changed(vocabulary=CONTRACT.vocabulary - 1))
