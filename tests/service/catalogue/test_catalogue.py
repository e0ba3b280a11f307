"""Tests of service/catalogue/catalogue.py, on real files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle import PairEncoder, Product
from bundle.text import Packed
from service.cache.pair_keys import product_digest
from service.catalogue.catalogue import Catalogue, PutCounts
from service.catalogue.recent import MAX_PRODUCTS, RecentLookups
from service.catalogue.record import ResolvedProduct, StoredProduct
from service.errors import Reason, Refused
from tests.tiny import text_contract, tokenizer_json

TOKENIZER = tokenizer_json()
CONTRACT = text_contract(TOKENIZER)
ENCODER = PairEncoder(TOKENIZER, CONTRACT)
OTHER = PairEncoder(TOKENIZER, CONTRACT.model_copy(update={"fields": CONTRACT.fields[:2]}))
MAX_BYTES = 1 << 20
QUERY = "red running shoes"
MUG, SHOE = Product(title="steel mug", text="kettle"), Product(title="red shoe", color="red")
TEXTS = st.lists(st.sampled_from(["mug", "red", "shoe", "\ud800", "\0", "x" * 30]), max_size=30).map(" ".join)
PRODUCTS = st.builds(Product, title=TEXTS, brand=TEXTS, color=TEXTS, text=TEXTS, bullets=TEXTS)
IDS = st.sampled_from(["a", "b", "1", 1, "🔎" * 256])


@pytest.fixture
def open_catalogue(tmp_path: Path) -> Iterator[Callable[..., Catalogue]]:
    """Opens catalogues in directories of their own, and closes them."""
    opened: list[Catalogue] = []
    numbers = count()

    def open_one(max_bytes: int = MAX_BYTES) -> Catalogue:
        opened.append(Catalogue(tmp_path / f"catalogue{next(numbers)}", max_bytes))
        return opened[-1]

    yield open_one
    for catalogue in opened:
        catalogue.close()


@pytest.fixture
def catalogue(open_catalogue: Callable[..., Catalogue]) -> Catalogue:
    """An empty catalogue."""
    return open_catalogue()


def _numbered(number: int, text: str = "book") -> list[StoredProduct]:
    return [StoredProduct(index, Product(title=f"mug {index}", text=text)) for index in range(number)]


def _packed(catalogue: Catalogue, ids: Sequence[str | int], encoder: PairEncoder = ENCODER) -> list[bool]:
    """Whether each product has a payload under an encoder's key."""
    found = catalogue.lookup(ids, encoder.text_key)
    return [isinstance(one.product, Packed) for one in found if one is not None]


def test_what_was_put_is_found(catalogue: Catalogue) -> None:
    """A product comes back with its texts and digest, and as the payload that the encoder made."""
    assert catalogue.put([StoredProduct("a", MUG)], [ENCODER]) == PutCounts(1, 0)

    (payload,) = ENCODER.pack([MUG])
    assert catalogue.get("a") == (MUG, product_digest(MUG))
    assert catalogue.lookup(["a"], ENCODER.text_key) == [
        ResolvedProduct(Packed(payload), product_digest(MUG))
    ]
    assert catalogue.count() == 1
    assert 0 < catalogue.size_bytes() < MAX_BYTES


def test_unknown_ids_give_nothing(catalogue: Catalogue) -> None:
    """An id that was never stored is None in its place, and nothing else is disturbed."""
    catalogue.put([StoredProduct("a", MUG)], [ENCODER])

    found = catalogue.lookup(["x", "a", 7], ENCODER.text_key)
    assert [one is None for one in found] == [True, False, True]
    assert catalogue.get("x") is None
    assert catalogue.lookup([], ENCODER.text_key) == []


def test_a_number_and_its_text_are_one_id(catalogue: Catalogue) -> None:
    """What was stored under 1 is found, replaced and deleted under "1"."""
    catalogue.put([StoredProduct(1, MUG)], [ENCODER])
    catalogue.put([StoredProduct("1", SHOE)], [ENCODER])

    assert catalogue.get(1) == (SHOE, product_digest(SHOE))
    assert catalogue.delete(["1"]) == 1
    assert catalogue.count() == 0


def test_the_last_of_an_id_counts(catalogue: Catalogue) -> None:
    """Of two products of one id in one call the last one is stored, once."""
    assert catalogue.put([StoredProduct("a", MUG), StoredProduct("a", SHOE)], [ENCODER]) == PutCounts(1, 0)
    assert catalogue.get("a") == (SHOE, product_digest(SHOE))


@given(st.lists(st.tuples(st.booleans(), IDS, PRODUCTS), max_size=12), TEXTS, PRODUCTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_history_leaves_rows_of_the_present_texts(
    open_catalogue: Callable[..., Catalogue],
    history: list[tuple[bool, str | int, Product]],
    query: str,
    overrides: Product,
) -> None:
    """After any puts and deletes, by any mix of models, each product ranks as if its texts had been sent."""
    catalogue = open_catalogue()
    present: dict[str, Product] = {}
    for step, (is_put, identifier, product) in enumerate(history):
        if is_put:
            catalogue.put([StoredProduct(identifier, product)], [ENCODER, OTHER][step % 2 :])
            present[str(identifier)] = product
        else:
            assert catalogue.delete([identifier]) == (present.pop(str(identifier), None) is not None)
        if step % 4 == 3:
            list(catalogue.rebuild(ENCODER, step=2))

    assert catalogue.count() == len(present)
    for encoder in (ENCODER, OTHER):
        found = [one for one in catalogue.lookup([*present], encoder.text_key) if one is not None]
        texts = [ResolvedProduct(product, product_digest(product)) for product in present.values()]
        assert [one.digest for one in found] == [one.digest for one in texts]
        for kept, sent in (
            (found, texts),
            (
                [one.with_overrides(overrides) for one in found],
                [one.with_overrides(overrides) for one in texts],
            ),
        ):
            assert encoder.encode(query, [one.product for one in kept]) == encoder.encode(
                query, [one.product for one in sent]
            )


def test_what_is_there_already_is_not_written_again(catalogue: Catalogue) -> None:
    """A feed that is sent once more costs lookups alone: nothing is packed, and only what changed is stored."""

    class CountingPacker:
        text_key = ENCODER.text_key
        packed = 0

        def pack(self, products: Sequence[Product]) -> list[bytes]:
            self.packed += len(products)
            return ENCODER.pack(products)

    packer = CountingPacker()
    feed = _numbered(20)

    assert catalogue.put(feed, [packer]) == PutCounts(20, 0)
    assert catalogue.put(feed, [packer]) == PutCounts(0, 20)
    assert catalogue.put([*feed[:19], StoredProduct(19, MUG)], [packer]) == PutCounts(1, 19)
    assert packer.packed == 21


def test_a_write_leaves_no_payload_of_former_texts(catalogue: Catalogue) -> None:
    """Payloads of a model that the writer does not serve go with the texts that they were made of."""
    catalogue.put([StoredProduct("a", MUG)], [ENCODER, OTHER])
    catalogue.put([StoredProduct("a", SHOE)], [ENCODER])

    assert catalogue.lookup(["a"], OTHER.text_key) == [ResolvedProduct(SHOE, product_digest(SHOE))]
    assert _packed(catalogue, ["a"]) == [True]


def test_another_text_key_is_served_from_the_texts_until_rebuilt(catalogue: Catalogue) -> None:
    """With a new tokenizer or contract rows are right at once, and come from payloads after the rebuild."""
    products = _numbered(10)
    ids = [stored.id for stored in products]
    catalogue.put(products, [ENCODER])
    expected = OTHER.encode(QUERY, [stored.product for stored in products])

    for rebuilt in (False, True):
        found = [one.product for one in catalogue.lookup(ids, OTHER.text_key) if one is not None]
        assert OTHER.encode(QUERY, found) == expected
        assert _packed(catalogue, ids, OTHER) == [rebuilt] * 10
        list(catalogue.rebuild(OTHER, step=3))
    assert _packed(catalogue, ids) == [True] * 10


def test_a_rebuild_goes_on_where_it_was_stopped(catalogue: Catalogue) -> None:
    """Steps are bounded, what they made stays, and the next rebuild makes the rest alone."""
    catalogue.put(_numbered(10), [])
    rebuild = catalogue.rebuild(ENCODER, step=3)

    assert (next(rebuild), next(rebuild)) == (3, 3)
    rebuild.close()
    assert sum(_packed(catalogue, range(10))) == 6
    assert sum(catalogue.rebuild(ENCODER, step=3)) == 4
    assert sum(catalogue.rebuild(ENCODER, step=3)) == 0
    assert sum(_packed(catalogue, range(10))) == 10


def test_a_rebuild_does_not_undo_what_others_wrote(catalogue: Catalogue) -> None:
    """Products that change or go while their payloads are made keep what their writer gave them."""

    class Meanwhile:
        text_key = ENCODER.text_key

        def pack(self, products: Sequence[Product]) -> list[bytes]:
            catalogue.put([StoredProduct("a", SHOE)], [])
            catalogue.delete(["b"])
            return ENCODER.pack(products)

    catalogue.put([StoredProduct("a", MUG), StoredProduct("b", MUG), StoredProduct("c", MUG)], [])
    list(catalogue.rebuild(Meanwhile()))

    found = catalogue.lookup(["a", "b"], ENCODER.text_key)
    assert found == [ResolvedProduct(SHOE, product_digest(SHOE)), None]
    assert _packed(catalogue, ["c"]) == [True]


def test_payloads_of_models_no_longer_served_are_retired(catalogue: Catalogue) -> None:
    """They go in bounded steps, those of the models that are named stay, and the room is free again."""
    catalogue.put(_numbered(10), [ENCODER, OTHER])
    before = catalogue.size_bytes()

    assert list(catalogue.prune([ENCODER.text_key], step=4)) == [4, 4, 2]
    assert _packed(catalogue, range(10)) == [True] * 10
    assert _packed(catalogue, range(10), OTHER) == [False] * 10
    assert list(catalogue.prune([ENCODER.text_key])) == []
    assert catalogue.size_bytes() <= before


def test_a_full_catalogue_refuses_and_keeps_what_it_has(catalogue: Catalogue) -> None:
    """What does not fit is refused whole; deleting makes room, and nothing else is lost."""
    batches = [
        [
            StoredProduct(f"{number}/{index}", Product(title="mug", text=f"{index} " * 300))
            for index in range(50)
        ]
        for number in range(100)
    ]
    stored = 0

    def fill() -> None:
        nonlocal stored
        for batch in batches:
            stored += catalogue.put(batch, [ENCODER]).stored

    with pytest.raises(Refused) as caught:
        fill()
    assert caught.value.reason is Reason.CATALOGUE_FULL
    assert catalogue.count() == stored > 200
    assert catalogue.size_bytes() <= MAX_BYTES
    assert catalogue.delete([f"0/{index}" for index in range(50)]) == 50
    assert catalogue.put(_numbered(20), [ENCODER]) == PutCounts(20, 0)
    assert catalogue.count() == stored - 30


def test_one_request_larger_than_the_map_is_refused(catalogue: Catalogue) -> None:
    """A transaction that outgrows even the room for copies ends as the same refusal."""
    huge = [StoredProduct(index, Product(text="x" * 1_000_000)) for index in range(80)]

    with pytest.raises(Refused) as caught:
        catalogue.put(huge, [])
    assert caught.value.reason is Reason.CATALOGUE_FULL
    assert catalogue.count() == 0


def test_a_catalogue_can_fill_and_empty_for_ever(open_catalogue: Callable[..., Catalogue]) -> None:
    """Pages of deleted products are used again: the same load, put and deleted many times, always fits."""
    catalogue = open_catalogue(2 << 20)
    for number in range(40):
        assert catalogue.put(_numbered(200, text=f"{number} " * 400), [ENCODER]).stored == 200
        assert catalogue.delete(range(200)) == 200

    assert catalogue.size_bytes() < MAX_BYTES // 8


def test_a_closed_catalogue_refuses(catalogue: Catalogue) -> None:
    """What comes after the end is a refusal, not a crash."""
    catalogue.close()

    for call in (catalogue.count, lambda: catalogue.get("a"), lambda: catalogue.delete(["a"])):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.reason is Reason.CATALOGUE_FAILED
    with suppress(Refused):
        catalogue.close()


def test_what_was_looked_up_lately_is_recalled(catalogue: Catalogue) -> None:
    """Packed products and unknown ids are told again without the disk, under the text key that they were found by."""
    catalogue.put([StoredProduct("a", MUG), StoredProduct("b", SHOE)], [ENCODER])
    assert catalogue.lookup_recent(["a"], ENCODER.text_key) is None

    found = catalogue.lookup(["a", "nobody"], ENCODER.text_key)

    assert catalogue.lookup_recent(["nobody", "a", "a"], ENCODER.text_key) == [None, found[0], found[0]]
    assert catalogue.lookup_recent(["a", "b"], ENCODER.text_key) is None
    assert catalogue.lookup_recent(["a"], OTHER.text_key) is None


def test_products_that_come_with_their_texts_are_not_recalled(catalogue: Catalogue) -> None:
    """Texts may be long: they are read anew until there is a payload."""
    catalogue.put([StoredProduct("a", MUG)], [OTHER])
    catalogue.lookup(["a"], ENCODER.text_key)

    assert catalogue.lookup_recent(["a"], ENCODER.text_key) is None


def test_nothing_is_recalled_after_a_write_of_another_process(tmp_path: Path) -> None:
    """Whoever writes, what was found before is looked up again."""
    ours = Catalogue(tmp_path, MAX_BYTES)
    ours.put([StoredProduct("a", MUG)], [ENCODER])
    for change in (_put_elsewhere, _delete_elsewhere):
        ours.lookup(["a"], ENCODER.text_key)
        assert ours.lookup_recent(["a"], ENCODER.text_key) is not None
        process = get_context("spawn").Process(target=change, args=(tmp_path,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert ours.lookup_recent(["a"], ENCODER.text_key) is None
    assert ours.lookup(["a"], ENCODER.text_key) == [None]
    ours.close()


def _put_elsewhere(path: Path) -> None:
    Catalogue(path, MAX_BYTES).put([StoredProduct("a", SHOE)], [ENCODER])


def _delete_elsewhere(path: Path) -> None:
    assert Catalogue(path, MAX_BYTES).delete(["a"]) == 1


def test_a_late_reader_does_not_bring_back_what_was() -> None:
    """What was found in an earlier state is not kept once a later one is known, and memory stays bounded."""
    recent, item = RecentLookups(), ResolvedProduct(Packed(b"old"), b"digest")
    recent.keep(5, "key", ["a"], [None])
    recent.keep(4, "key", ["a"], [item])

    assert recent.get(5, "key", ["a"]) == [None]
    assert recent.get(4, "key", ["a"]) is None

    recent.keep(5, "key", range(MAX_PRODUCTS), [item] * MAX_PRODUCTS)
    assert recent.get(5, "key", ["a"]) is None
    assert recent.get(5, "key", [0, MAX_PRODUCTS - 1]) == [item, item]
