"""Fields that are read as one text, for tokenizers to which the space before a word belongs to it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from bundle.manifest import TextContract
from bundle.packed import text_key
from bundle.text import Packed, PairEncoder, Product
from tests.tiny import text_contract, tokenizer_json

NAMES = Product._fields
WORDS = st.lists(st.sampled_from(["mug", "red", "shoes", "\ud800", "\0", "x" * 50, " "]), max_size=30)
TEXTS = WORDS.map(" ".join) | st.text(st.characters(exclude_categories=()), max_size=60)
PRODUCTS = st.builds(Product, **dict.fromkeys(NAMES, st.just("") | TEXTS))
OVERRIDES = st.none() | st.builds(Product, **dict.fromkeys(NAMES, st.just("") | TEXTS))
SURROGATE = re.compile("[\ud800-\udfff]")
WORDPIECE = tokenizer_json()


def _byte_level() -> bytes:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d"), ("Ġ", "red"), ("Ġ", "re"), ("m", "u"), ("mu", "g"), ("Ġ", "mug")]
    pieces = ["<s>", "</s>", *letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str().encode()


BYTES = _byte_level()


def _contract(tokenizer: bytes, separator: str | None, **changes: object) -> TextContract:
    return TextContract.model_validate({**dict(text_contract(tokenizer)), "separator": separator, **changes})


ROOMY = {"max_length": 400, "query_max_tokens": 100, "query_max_chars": 400}
SPACED = PairEncoder(BYTES, _contract(BYTES, " "))
ENCODERS = [
    SPACED,
    PairEncoder(WORDPIECE, _contract(WORDPIECE, " | ")),
    PairEncoder(WORDPIECE, _contract(WORDPIECE, " ")),
]


def _merged(product: Product, overrides: Product | None) -> Product:
    """The product whose texts `overrides` replace; a blank one replaces nothing."""
    if overrides is None:
        return product
    return product._replace(**{name: text for name in NAMES if (text := getattr(overrides, name)).strip()})


@given(TEXTS, st.lists(st.tuples(PRODUCTS, OVERRIDES, st.booleans()), max_size=4))
def test_rows_from_payloads_are_those_of_the_texts(
    query: str, items: list[tuple[Product, Product | None, bool]]
) -> None:
    """Whatever is packed, overridden or sent as text, the rows equal those of the full texts, whichever comes first."""
    for encoder in ENCODERS:
        expected = encoder.encode(query, [_merged(product, overrides) for product, overrides, _ in items])
        payloads = encoder.pack([product for product, _, _ in items])
        mixed = [
            Packed(payload, overrides) if is_packed else _merged(product, overrides)
            for (product, overrides, is_packed), payload in zip(items, payloads, strict=True)
        ]

        assert encoder.encode(query, mixed) == expected


@given(PRODUCTS)
def test_ids_are_those_of_the_joined_text(product: Product) -> None:
    """The fields that are not blank, joined by the separator, have the ids that the tokenizer gives that one text."""
    contract = _contract(BYTES, " ", **ROOMY)
    roomy = PairEncoder(
        BYTES,
        contract.model_copy(
            update={
                "fields": tuple(
                    f.model_copy(update={"max_tokens": 999, "max_chars": 999}) for f in contract.fields
                )
            }
        ),
    )
    parts = (SURROGATE.sub("\ufffd", getattr(product, field.name)).strip() for field in contract.fields)
    text = " ".join(part for part in parts if part)
    (row,) = roomy.encode("", [product])
    head, tail = len(contract.template.prefix) + len(contract.template.middle), len(contract.template.suffix)
    expected = Tokenizer.from_buffer(BYTES).encode(text, add_special_tokens=False).ids

    assert row.truncated or list(row.ids)[head : len(row) - tail] == expected


def test_a_plain_text_begins_like_a_title() -> None:
    """The first field that is not blank has no separator before it, whichever it is."""
    title, text = SPACED.encode("mug", [Product(title="red mug"), Product(text="red mug")])
    later = SPACED.encode("mug", [Product(title="mug", text="red mug")])[0]

    assert title == text
    assert title.ids[-4:-1] != later.ids[-4:-1]


def test_measured_tokens_are_those_of_the_row() -> None:
    """What `explain` counts of each field, with the separator before it, adds up to the row."""
    product = Product(title="red mug", brand="mug", color="red")
    (row,) = SPACED.encode("mug", [product])
    _, (use,) = SPACED.measure("mug", [product])

    assert use.tokens == len(row)
    assert [field.tokens for field in use.fields] == [2, 1, 1]


def test_a_separator_is_a_part_of_the_payloads_name() -> None:
    """Payloads of another separator are others; without one the name is as before separators were known."""
    plain = _contract(BYTES, None)

    assert text_key(BYTES, plain) == text_key(BYTES, text_contract(BYTES))
    assert len({text_key(BYTES, plain), text_key(BYTES, _contract(BYTES, " ")), SPACED.text_key}) == 2


def test_an_old_contract_is_written_as_before() -> None:
    """A contract without a separator does not mention it."""
    assert "separator" not in text_contract(WORDPIECE).model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize("separator", ["", "|", "x "])
def test_a_separator_begins_with_white_space(separator: str) -> None:
    """Otherwise the last word of a field would be read together with it."""
    with pytest.raises(ValidationError):
        _contract(BYTES, separator)


def test_words_are_not_looked_up_where_fields_are_joined() -> None:
    """The native table knows nothing of separators, so it is told that a product's words do not stand alone."""
    assert PairEncoder(WORDPIECE, text_contract(WORDPIECE))._tokens.reads_words_alone
    assert not ENCODERS[1]._tokens.reads_words_alone
