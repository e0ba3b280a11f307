"""Products tokenized ahead of their queries: the same rows, from compact bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.manifest import FieldSpec, TextContract
from bundle.packed import FieldIds, PayloadLayout, text_key
from bundle.rows import Row
from bundle.text import Packed, PairEncoder, Product
from bundle.words import pack_ids, unpack_ids
from tests.tiny import text_contract, tokenizer_json

TOKENIZER = tokenizer_json()
CONTRACT = text_contract(TOKENIZER)
ENCODER = PairEncoder(TOKENIZER, CONTRACT)
NAMES = Product._fields
WORDS = st.lists(st.sampled_from(["mug", "red", "shoes", "\ud800", "\0", "🔇", "x" * 50]), max_size=40)
TEXTS = WORDS.map(" ".join) | st.text(st.characters(exclude_categories=()), max_size=80)
PRODUCTS = st.builds(Product, **dict.fromkeys(NAMES, TEXTS))
OVERRIDES = st.none() | st.builds(Product, **dict.fromkeys(NAMES, st.just("") | TEXTS))
WIDE = PairEncoder(TOKENIZER, CONTRACT.model_copy(update={"vocabulary": 70_000}))


def _changed(**changes: object) -> TextContract:
    return TextContract.model_validate({**dict(CONTRACT), **changes})


def _merged(product: Product, overrides: Product | None) -> Product:
    """The product whose texts `overrides` replace, as a client would send it in full."""
    if overrides is None:
        return product
    return product._replace(**{name: text for name in NAMES if (text := getattr(overrides, name))})


def _field(ids: int) -> st.SearchStrategy[FieldIds]:
    numbers = st.lists(st.integers(0, CONTRACT.vocabulary - 1), max_size=ids)
    return st.tuples(numbers.map(pack_ids), st.booleans())


@given(TEXTS, st.lists(st.tuples(PRODUCTS, OVERRIDES, st.booleans()), max_size=5))
def test_rows_from_payloads_are_those_of_the_texts(
    query: str, items: list[tuple[Product, Product | None, bool]]
) -> None:
    """Whatever is packed, overridden or sent as text, side by side, the rows equal those of the full texts."""
    expected = ENCODER.encode(query, [_merged(product, overrides) for product, overrides, _ in items])

    for encoder in (ENCODER, WIDE):
        payloads = encoder.pack([product for product, _, _ in items])
        mixed = [
            Packed(payload, overrides) if is_packed else _merged(product, overrides)
            for (product, overrides, is_packed), payload in zip(items, payloads, strict=True)
        ]
        assert encoder.encode(query, mixed) == expected


@given(st.lists(st.tuples(*(_field(spec.max_tokens) for spec in CONTRACT.fields)), max_size=4))
def test_what_is_unpacked_is_what_was_packed(given: list[tuple[FieldIds, ...]]) -> None:
    """Each field comes back with its ids and its mark, and all of them in order."""
    layout = PayloadLayout(CONTRACT)
    payloads = [layout.pack(fields) for fields in given]

    assert [layout.read_fields(payload) for payload in payloads] == [list(fields) for fields in given]
    assert [layout.read(payload) for payload in payloads] == [
        (b"".join(ids for ids, _ in fields), any(cut for _, cut in fields)) for fields in given
    ]
    for payload, fields in zip(payloads, given, strict=True):
        assert layout.count(payload) == sum(len(unpack_ids(ids)) for ids, _ in fields)


def test_a_payload_is_compact() -> None:
    """A token takes two bytes where the vocabulary allows it, and four where it does not."""
    product = Product(title="red shoes", brand="mug")

    assert len(ENCODER.pack([product])[0]) == 2 * (len(CONTRACT.fields) + 3)
    assert len(WIDE.pack([product])[0]) == 4 * (len(CONTRACT.fields) + 3)
    assert ENCODER.packed_tokens(ENCODER.pack([product])[0]) == 3


def test_an_override_forgets_what_the_stored_field_lost() -> None:
    """A short text in place of one that was cut off is read whole, and says so."""
    (payload,) = ENCODER.pack([Product(title="mug " * 40)])

    assert ENCODER.encode("mug", [Packed(payload)])[0].truncated
    assert not ENCODER.encode("mug", [Packed(payload, Product(title="mug"))])[0].truncated


@pytest.mark.parametrize("payload", [b"", b"\1", b"\0\0", b"\2" + b"\0" * 50, b"\xff" * 51, b"\xff" * 64])
def test_bytes_that_are_no_payload_are_refused(payload: bytes) -> None:
    """Bytes of another layout raise, with or without overrides; they never give a row of wrong ids."""
    for overrides in (None, Product(title="mug")):
        with pytest.raises(ValueError, match="no payload"):
            ENCODER.encode("mug", [Packed(payload, overrides)])


def test_a_payload_that_is_none_is_refused_among_others() -> None:
    """One product's bytes are not read as another's."""
    (good,) = ENCODER.pack([Product(title="mug", brand="red")])
    longer, shorter = good + good[-2:], good[:-2]

    for payloads in ([good, b"\1", good], [longer, shorter], [shorter, longer]):
        with pytest.raises(ValueError, match="no payload"):
            ENCODER.encode("mug", [Packed(payload) for payload in payloads])


def test_nothing_to_pack() -> None:
    """No products give no payloads, and a product without texts gives one of an empty row."""
    (payload,) = ENCODER.pack([Product()])

    assert ENCODER.pack([]) == []
    assert ENCODER.encode("", [Packed(payload)]) == ENCODER.encode("", [Product()])
    assert isinstance(ENCODER.encode("", [Packed(payload)])[0], Row)


def test_the_key_changes_with_what_decides_about_ids() -> None:
    """Another tokenizer, another field limit or another order of fields is another key."""
    first, *rest = CONTRACT.fields
    keys = {
        ENCODER.text_key,
        text_key(TOKENIZER + b" ", CONTRACT),
        text_key(TOKENIZER, _changed(fields=(*rest, first))),
        text_key(TOKENIZER, _changed(fields=(FieldSpec(name=first.name, max_chars=9, max_tokens=24), *rest))),
        WIDE.text_key,
    }

    assert len(keys) == 5
    assert {len(bytes.fromhex(key)) for key in keys} == {8}


def test_the_key_stays_with_what_does_not() -> None:
    """Models that differ in the limits of query and pair share their payloads."""
    other = _changed(query_max_chars=999, query_max_tokens=5, max_length=CONTRACT.max_length + 8)

    assert PairEncoder(TOKENIZER, other).text_key == ENCODER.text_key
