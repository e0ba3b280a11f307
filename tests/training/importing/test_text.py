"""Text contracts of every tokenizer class, compared with the tokenizer itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from bundle.text import Product
from tests.training.importing.folders import LENGTH, PRODUCTS, QUERIES, TOKENIZERS, VOCABULARY, tokenizer_of
from training.errors import StageError
from training.importing.command import TextChoice
from training.importing.folder import Source
from training.importing.text import Texts, check_texts, joined, load_texts

PLAIN = TextChoice()
MANY = [(query, product) for query in QUERIES for product in PRODUCTS]


def _source(folder: Path, *, longest: int | None = None, lowers: bool = False) -> Source:
    return Source("mine", folder, "", (), "", longest, lowers=lowers, names=())


def _texts(folder: Path, kind: str, choice: TextChoice = PLAIN, **told: object) -> Texts:
    tokenizer_of(kind).save_pretrained(folder)
    return load_texts(_source(folder, **told), choice, VOCABULARY, LENGTH)


@pytest.mark.parametrize("separator", [" ", " | ", "\n"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rows_are_those_of_the_joined_text(kind: str, separator: str, tmp_path: Path) -> None:
    """Fields joined by white space, or by more, have the ids that the model's own tokenizer gives the whole."""
    choice = TextChoice((("brand", 0), ("title", 0), ("color", 0)), separator)
    texts = _texts(tmp_path, kind, choice)
    source = _source(tmp_path)

    assert check_texts(source, texts, choice, MANY) >= len(MANY) - len(QUERIES)


def test_only_tokenizers_that_need_it_join_fields(tmp_path: Path) -> None:
    """WordPiece reads each field by itself, which the native engine's table of words can; others are told to join."""
    assert _texts(tmp_path / "bert", "bert").contract.separator is None
    assert _texts(tmp_path / "roberta", "roberta").contract.separator == " "
    assert _texts(tmp_path / "pipe", "bert", TextChoice(separator=" | ")).contract.separator == " | "


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "modernbert"])
def test_a_long_pair_loses_the_end_of_the_product(kind: str, tmp_path: Path) -> None:
    """A pair of more tokens than fit is cut where the tokenizer itself cuts it, the query shorter than the product."""
    texts = _texts(tmp_path, kind)
    product = Product(title="red running shoes " * 500)
    second = joined(product, texts.contract, " ")
    own = texts.tokenizer("running shoes", second, truncation="longest_first", max_length=LENGTH)

    assert list(texts.encoder().encode("running shoes", [product])[0].ids) == own["input_ids"]


def test_types_are_those_that_the_tokenizer_gives(tmp_path: Path) -> None:
    """BERT's second text has a type of its own; a tokenizer without types has none."""
    assert _texts(tmp_path / "bert", "bert").contract.template.type_ids
    assert not _texts(tmp_path / "roberta", "roberta").contract.template.type_ids
    assert not _texts(tmp_path / "modernbert", "modernbert").contract.template.type_ids


def test_the_length_is_the_folders(tmp_path: Path) -> None:
    """It is the shortest of what tokenizer, folder and positions allow, unless a flag says otherwise."""
    assert _texts(tmp_path, "bert").contract.max_length == LENGTH
    assert _texts(tmp_path, "bert", longest=128).contract.max_length == 128
    assert _texts(tmp_path, "bert", TextChoice(max_length=64), longest=128).contract.max_length == 64
    with pytest.raises(StageError, match="positions for 512"):
        _texts(tmp_path, "bert", TextChoice(max_length=LENGTH + 1))


def test_limits_of_fields_and_query(tmp_path: Path) -> None:
    """A flag bounds the tokens of a field; a product sent as one text is read whatever the fields are."""
    contract = _texts(tmp_path, "bert", TextChoice((("title", 8),), query_tokens=6)).contract

    assert [(field.name, field.max_tokens) for field in contract.fields] == [
        ("title", 8),
        ("text", LENGTH - 3),
    ]
    assert contract.query_max_tokens == 6


def test_a_query_that_leaves_no_room(tmp_path: Path) -> None:
    """A query as long as the pair is refused in words."""
    with pytest.raises(StageError, match="no room"):
        _texts(tmp_path, "bert", TextChoice(max_length=32, query_tokens=31))


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    """Ids beyond the model's rows would stop the first request."""
    tokenizer_of("bert").save_pretrained(tmp_path)

    with pytest.raises(StageError, match="belong to different models"):
        load_texts(_source(tmp_path), TextChoice(), 50, LENGTH)


def test_texts_that_are_lowered_first(tmp_path: Path) -> None:
    """A folder of sentence-transformers may lower texts that its tokenizer would keep."""
    texts = _texts(tmp_path, "roberta", lowers=True)
    encoder = texts.encoder()

    assert encoder.encode("HOSE", [Product(title="Garden")]) == encoder.encode(
        "hose", [Product(title="garden")]
    )


def test_a_tokenizer_that_reads_across_spaces(tmp_path: Path) -> None:
    """Where two fields make one token, the pair that shows it is told, and what to do."""
    tokenizer = tokenizer_of("roberta")
    tokenizer.add_tokens(["nozzle Greenleaf"])
    tokenizer.save_pretrained(tmp_path)
    texts = load_texts(_source(tmp_path), TextChoice(), VOCABULARY, LENGTH)

    with pytest.raises(StageError, match="--fields title"):
        check_texts(_source(tmp_path), texts, TextChoice(), MANY)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    """It is one line like every other broken folder."""
    with pytest.raises(StageError, match="cannot be loaded"):
        load_texts(_source(tmp_path), TextChoice(), VOCABULARY, LENGTH)
