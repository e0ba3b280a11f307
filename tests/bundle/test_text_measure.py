"""How much of each text is read: the counts add up to the row that is scored, and name what cut a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from bundle.manifest import TextContract
from bundle.rows import Rows
from bundle.text import PairEncoder, Product, ProductUse, TextUse
from tests.tiny import NASTY_PAIRS, UNKNOWN, text_contract, tokenizer_json

TOKENIZER = tokenizer_json()
CONTRACT = text_contract(TOKENIZER)
ENCODER = PairEncoder(TOKENIZER, CONTRACT)
ODD = st.text(st.characters(exclude_categories=()), max_size=80)  # surrogates, NUL and all
LONG = st.builds(
    lambda word, times: word * times, st.sampled_from(["mug ", "\0", "红", "x", "[SEP]"]), st.integers(0, 500)
)
TEXTS = ODD | LONG
PRODUCTS = st.builds(Product, **dict.fromkeys(Product._fields, TEXTS))


@given(TEXTS, st.lists(PRODUCTS, max_size=4))
def test_the_counts_are_those_of_the_rows(query: str, products: list[Product]) -> None:
    """For any texts, tokens, unknown tokens and clipping are those of the rows that `encode` gives."""
    rows = ENCODER.encode(query, products)
    query_use, uses = ENCODER.measure(query, products)

    assert len(rows) == len(uses)
    for row, use in zip(rows, uses, strict=True):
        assert use.tokens == len(row)
        assert query_use.tokens == row.query_tokens - 2
        assert query_use.tokens + sum(field.tokens for field in use.fields) + 3 == len(row)
        assert row.truncated == any(text.is_clipped for text in (query_use, *use.fields))
        unknown = [text.unknown or 0 for text in (query_use, *use.fields)]
        assert sum(unknown) == row.ids.count(UNKNOWN) == ENCODER.count_unknown(Rows.of([row]))
        assert all(
            0 <= count <= text.tokens for count, text in zip(unknown, (query_use, *use.fields), strict=True)
        )


@given(TEXTS, PRODUCTS)
def test_each_field_has_the_tokens_that_stand_in_the_row(query: str, product: Product) -> None:
    """A field's tokens are what the row loses when the fields from it on are left out."""
    _, (use,) = ENCODER.measure(query, [product])
    left = product

    for field in reversed(use.fields):
        (longer,) = ENCODER.encode(query, [left])
        left = left._replace(**{field.name: ""})
        (shorter,) = ENCODER.encode(query, [left])
        assert field.tokens == len(longer) - len(shorter)


PLAIN = st.text(max_size=150) | LONG  # no surrogates, which the encoder replaces before it tokenizes


@given(PLAIN, st.builds(Product, **dict.fromkeys(Product._fields, PLAIN)))
def test_what_is_not_read_is_counted(query: str, product: Product) -> None:
    """Read and cut tokens together are all that the clipped text has."""
    query_use, (use,) = ENCODER.measure(query, [product])
    limits = {field.name: field.max_chars for field in CONTRACT.fields}
    tokenizer = Tokenizer.from_buffer(TOKENIZER)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    texts = {"query": query, **{name: getattr(product, name) for name in limits}}

    for text in (query_use, *use.fields):
        clipped = texts[text.name][: limits.get(text.name, CONTRACT.query_max_chars)]
        whole = tokenizer.encode(clipped, add_special_tokens=False).ids
        assert text.tokens + text.over_limit + text.over_length == len(whole)
        assert text.over_chars == len(texts[text.name]) - len(clipped)


def test_each_cause_has_its_count() -> None:
    """A text is cut by its characters, by its own limit and by the pair's length, each counted apart."""
    product = Product(
        title="mug " * 20, brand="cup " * 8, color="\0" * 61, description="lamp " * 16, text="sofa"
    )

    query, (use,) = ENCODER.measure("red " * 31, [product])

    assert query == TextUse("query", 12, 0, over_limit=18, over_length=0, over_chars=4)
    assert use == ProductUse(
        (
            TextUse("title", 20, 0, over_limit=0, over_length=0, over_chars=0),
            TextUse("brand", 6, 0, over_limit=2, over_length=0, over_chars=0),
            TextUse("color", 0, 0, over_limit=0, over_length=0, over_chars=1),
            TextUse("description", 7, 0, over_limit=0, over_length=9, over_chars=0),
            TextUse("text", 0, 0, over_limit=0, over_length=1, over_chars=0),
        ),
        tokens=48,
    )


def test_only_fields_that_are_given_and_known_are_told() -> None:
    """An empty field and one that the contract does not have are not in the counts."""
    assert ENCODER.measure("", [Product(category="mug", title="")]) == (
        TextUse("query", 0, 0, 0, 0, 0),
        [ProductUse((), 3)],
    )
    assert ENCODER.measure("mug", []) == (TextUse("query", 1, 0, 0, 0, 0), [])


def test_unknown_text_is_counted() -> None:
    """A word without a piece counts as one unknown token, and only if it is read."""
    query, (use,) = ENCODER.measure("😀 mug", [Product(title="红 mug", brand="mug " * 6 + "红")])

    assert (1, [1, 0]) == (query.unknown, [field.unknown for field in use.fields])


def _with_model(model: object) -> tuple[bytes, TextContract]:
    raw = Tokenizer(model).to_str().encode()  # type: ignore[arg-type]
    return raw, CONTRACT.model_copy(update={"vocabulary": 1_000})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.WordLevel({"<unk>": 0, "mug": 1}, unk_token="<unk>"), 1),
        (models.WordLevel({"mug": 1, "😀": 2}, unk_token="<unk>"), None),
        (models.BPE({"m": 0, "u": 1, "<unk>": 2}, [], unk_token="<unk>"), 1),
        (models.BPE({"m": 0, "u": 1}, []), None),
        (models.Unigram([("<unk>", 0.0), ("mug", -1.0)], 0), 1),
        (models.Unigram([("😀", -1.0), ("mug", -1.0)], None), None),
    ],
)
def test_every_kind_of_tokenizer_says_what_it_does_not_know(model: object, expected: int | None) -> None:
    """Unknown tokens are counted where the tokenizer has such a token, and null where it has none."""
    encoder = PairEncoder(*_with_model(model))
    query, _ = encoder.measure("😀", [])

    assert expected == query.unknown
    without, counted = (encoder.count_unknown(encoder.encode(text, [Product()])) for text in ("", "😀"))
    assert expected == (None if counted is None else counted - (without or 0))


def test_the_nasty_pairs_are_measured() -> None:
    """The texts of the golden rows are counted as they are encoded."""
    for query, product in NASTY_PAIRS:
        (row,), (_, (use,)) = ENCODER.encode(query, [product]), ENCODER.measure(query, [product])
        assert len(row) == use.tokens
