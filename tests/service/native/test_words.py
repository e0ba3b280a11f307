"""Rows read by the table of words are those of `PairEncoder`, whatever the texts."""

import gzip
import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundle import PairEncoder, Product, read_bundle
from bundle.manifest import FieldSpec, TextContract
from bundle.text import Packed
from service.native import words
from service.native.words import NativePairEncoder
from tests.bundle.test_words import PRODUCTS, TEXTS
from tests.service.native.support import NO_WORDS, needs_words
from tests.service.support import ROOT

BUNDLE = read_bundle(ROOT / "models", "default")
TOKENIZER = BUNDLE.files[BUNDLE.manifest.tokenizer]


pytestmark = needs_words


def _contract(*limits: tuple[str, int, int], length: int = 48) -> TextContract:
    """The bundle's contract with other limits: name, characters and tokens of each field."""
    fields = tuple(FieldSpec(name=name, max_chars=chars, max_tokens=tokens) for name, chars, tokens in limits)
    changed = {"fields": fields, "max_length": length, "query_max_tokens": 4, "query_max_chars": 64}
    return BUNDLE.manifest.text.model_copy(update=changed)


def _pair(contract: TextContract) -> tuple[PairEncoder, NativePairEncoder]:
    """The plain encoder of a contract and the one that is tested."""
    return PairEncoder(TOKENIZER, contract), NativePairEncoder(TOKENIZER, contract)


WIDE = _contract(("title", 200, 40), ("brand", 20, 3), ("bullets", 100, 12), ("text", 300, 60))
NARROW = _contract(("title", 7, 2), ("text", 30, 5), length=12)
SINGLE = _contract(("title", 200, 40))
PAIRS = [] if NO_WORDS else [_pair(contract) for contract in (WIDE, NARROW, SINGLE)]
FIELDS = st.builds(Product, title=TEXTS, brand=TEXTS, bullets=TEXTS, text=TEXTS)
LONG = Product("sofa " * 500, "a" * 64 + " " + "b" * 65, "", "", "é" * 32 + " " + "é" * 33, "", "x\n\n y  z")
ODD = Product("漢字 " * 40, "", "", "", "half \ud83d a pair", "", "a\0b")


def _assert_same(products: Sequence[Product | Packed], query: str = "red sofa") -> None:
    for plain, native in PAIRS:
        expected = plain.encode(query, products)
        assert native.encode(query, products) == expected
        assert native.encode(query, products) == expected  # by now all words are known that can be


@settings(max_examples=600, deadline=None)
@given(st.lists(FIELDS, max_size=5))
@example([LONG])
@example([ODD])
@example([LONG, ODD, Product(), Product(text="!" * 60)])
def test_rows_are_those_of_the_plain_encoder(products: list[Product]) -> None:
    """Any texts, odd Unicode included, give the same rows at first sight and when all words are known."""
    _assert_same(products)


@pytest.mark.parametrize("tokens", range(1, 8))
def test_every_end_of_a_field_and_of_a_row(tokens: int) -> None:
    """A text that is as long as its limit, and one token to either side of it, is cut where the plain encoder cuts."""
    for length in range(8, 20):
        contract = _contract(("title", 30, tokens), ("text", 12, 4), length=length)
        plain, native = _pair(contract)
        products = [
            Product(title="sofa " * title, text="chairs " * text) for title in range(9) for text in range(4)
        ]
        for _ in range(2):
            assert native.encode("red", products) == plain.encode("red", products)


@pytest.mark.skipif(not PRODUCTS.is_file(), reason="the judged data sets are not beside this checkout")
def test_real_products_in_three_languages() -> None:
    """Products in English, Spanish and Japanese have the same rows either way."""
    plain, native = _pair(BUNDLE.manifest.text)
    with gzip.open(PRODUCTS, "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    texts = [
        {name: text for name, text in product.items() if name in Product._fields and isinstance(text, str)}
        for product in random.Random(3).sample(read, min(len(read), 6_000))  # noqa: S311  texts, not secrets
    ]
    products = [Product(**fields) for fields in texts]
    for start in range(0, len(products), 200):
        chosen = products[start : start + 200]
        assert native.encode("zapatos rojos", chosen) == plain.encode("zapatos rojos", chosen)


def test_packed_products_stand_where_they_stood() -> None:
    """Packed products, overridden or not, keep their places among plain ones."""
    plain, native = _pair(WIDE)
    payload = plain.pack([Product(title="garden table", brand="acme")])[0]
    products = [
        Packed(payload),
        Product(title="oak chair"),
        Packed(payload, Product(brand="other")),
        Product(text="lamp"),
    ]
    for chosen in (products, products[::-1], [products[0]], [products[2]]):
        assert native.encode("table", chosen) == plain.encode("table", chosen)


@pytest.mark.parametrize(("bound", "most"), [("MAX_WORDS", 4), ("_MAX_UNKNOWN", 3)])
def test_more_words_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch, bound: str, most: int) -> None:
    """A full table begins anew, and words that were not told for lack of room are learnt at a later time."""
    monkeypatch.setattr(words, bound, most)
    plain, native = _pair(WIDE)
    products = [Product(title=f"w{number} and {number} x{number}") for number in range(70)]
    for _ in range(12):
        assert native.encode("x", products) == plain.encode("x", products)


def test_known_words_are_not_asked_of_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read once is read from the table: the plain way is not taken."""
    native = NativePairEncoder(TOKENIZER, WIDE)
    products = [Product(title="oak chair", text="solid oak"), Product(title="oak table")]
    rows = native.encode("oak", products)

    def refuse(*_: object) -> None:
        raise AssertionError("read by the plain encoder")

    monkeypatch.setattr(PairEncoder, "_fields", refuse)
    assert native.encode("oak", products) == rows


def test_threads_share_a_table() -> None:
    """Rows are the same when several threads read and learn at once."""
    plain, native = _pair(WIDE)
    draws = random.Random(7)  # noqa: S311  texts, not secrets
    lists = [
        [Product(title=" ".join(f"w{draws.randrange(3_000)}" for _ in range(12))) for _ in range(60)]
        for _ in range(40)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda products: native.encode("w1", products), lists * 2))
    assert found == [plain.encode("w1", products) for products in lists * 2]


def test_a_payload_of_another_contract_is_an_error() -> None:
    """Bytes that are no payload are refused as the plain encoder refuses them."""
    for encoder in _pair(WIDE):
        for payload in (b"", b"\x03", b"\x08\0" * 4, b"\x02\0" * 3):
            with pytest.raises(ValueError, match="no payload"):
                encoder.encode("oak", [Packed(payload)])


def test_tokens_without_a_piece_are_counted() -> None:
    """Unknown tokens are counted as the plain encoder counts them."""
    plain, native = _pair(WIDE)
    rows = plain.encode("oak 😀", [Product(title="chair 😀 漢"), Product()])

    assert plain.count_unknown(rows) == native.count_unknown(rows) > 0


def test_fields_that_are_joined_are_not_read_by_the_table() -> None:
    """The table knows nothing of what stands between fields, so such rows are made as `PairEncoder` makes them."""
    joined = WIDE.model_copy(update={"separator": " | "})
    plain, native = _pair(joined)
    products = [Product("red sofa", "Norvik"), Product(text="sofa"), ODD]

    assert native._table is None
    assert native.encode("red sofa", products) == plain.encode("red sofa", products)
