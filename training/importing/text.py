"""How a query and a product become a cross-encoder's pair of texts, as a bundle's text contract says it.

Knows the model's own tokenizer and what the command line asks for; does not know weights.
Invariant: the contract's token ids are those of the model's own tokenizer for the same two texts, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from bundle.errors import BundleError
from bundle.manifest import FieldSpec, PairTemplate, TextContract
from bundle.text import PairEncoder, Product
from bundle.words import reads_words_alone
from training.data.tables import well_formed
from training.errors import StageError
from training.importing.command import TextChoice
from training.importing.folder import Source
from training.models.hub import load_pretrained
from training.pack.assemble import strip_tokenizer

USUAL_LENGTH = 512  # tokens of a pair, where the model reads more: longer ones cost the square of it on a CPU
CHARS_A_TOKEN = 16  # at most so many are read for each token that there is room for
PLAIN = "text"  # the field of a product that was sent as one text: every contract reads it
MARK = "a"  # a text whose ids are looked for among those of a pair


@dataclass(frozen=True, slots=True)
class Texts:
    """The model's tokenizer, its file as a bundle keeps it, and the contract that goes with it."""

    tokenizer: Any
    file: bytes
    contract: TextContract

    def encoder(self) -> PairEncoder:
        """Return what makes rows of pairs."""
        return PairEncoder(self.file, self.contract)


def load_texts(source: Source, choice: TextChoice, vocabulary: int, positions: int) -> Texts:
    """Return the tokenizer with its contract; `vocabulary` and `positions` are what the model has rows for."""
    tokenizer = load_pretrained(AutoTokenizer, str(source.folder))
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            f"{source.name}: its tokenizer {type(tokenizer).__name__} has no tokenizer.json; save it once by "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) where that makes one"
        )
    if source.lowers:
        backend = tokenizer.backend_tokenizer
        parts = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(parts)
    file = strip_tokenizer(tokenizer.backend_tokenizer.to_str().encode())
    plain = Tokenizer.from_buffer(file)
    known = 1 + max(plain.get_vocab(with_added_tokens=True).values(), default=0)
    if known > vocabulary:
        raise StageError(
            f"{source.name}: its tokenizer has ids up to {known - 1}, its model rows for {vocabulary} alone; "
            "they belong to different models"
        )
    longest = _longest(source, tokenizer, choice.max_length, positions)
    template = _template(source, tokenizer)
    try:
        is_blank = not choice.separator.strip()
        separator = None if is_blank and reads_words_alone(plain) else choice.separator
        contract = _contract(choice, template, longest, known, separator)
        PairEncoder(file, contract)
    except (ValueError, BundleError) as error:
        raise StageError(f"{source.name}: no text contract for it ({error})") from error
    return Texts(tokenizer, file, contract)


def in_words(choice: TextChoice) -> str:
    """Return in words what the model's second text is."""
    names = ", ".join(name + (f" ({most} tokens)" if most else "") for name, most in choice.fields)
    return f"{names}, what is known of them joined by {choice.separator!r}"


def joined(product: Product, contract: TextContract, separator: str) -> str:
    """Return the model's second text of a product, as one string."""
    texts = (well_formed(getattr(product, field.name)) for field in contract.fields)
    if contract.separator is not None:
        texts = (text.strip() for text in texts)
    return separator.join(text for text in texts if text)


def check_texts(
    source: Source, texts: Texts, choice: TextChoice, pairs: Iterable[tuple[str, Product]]
) -> int:
    """Compare rows with what the model's own tokenizer makes of the same pairs; return how many.

    StageError names the first that differs: the model would read other tokens than it was trained on.
    """
    encoder, compared = texts.encoder(), 0
    for query, product in pairs:
        second = joined(product, texts.contract, choice.separator)
        row = encoder.encode(query, [product])[0]
        if row.truncated:
            continue
        compared += 1
        # as in a bundle, a "[SEP]" in a title is text; in lists, since an empty text alone is taken for none
        own = texts.tokenizer([well_formed(query)], [second], split_special_tokens=True)["input_ids"][0]
        if list(row.ids) != own:
            raise StageError(
                f"{source.name}: its tokenizer reads fields that are joined by {choice.separator!r} otherwise than one "
                f"after the other, as in {second[:80]!r}; import one field alone by --fields title, or another --separator"
            )
    return compared


def _longest(source: Source, tokenizer: Any, asked: int, positions: int) -> int:
    """Return how many tokens a pair has at most: as asked, or as the folder says up to `USUAL_LENGTH`."""
    limits = [positions, tokenizer.model_max_length, *([source.longest] if source.longest else [])]
    if asked > positions:
        raise StageError(f"--max-length {asked}: {source.name} has positions for {positions} tokens")
    return asked or int(min(*limits, USUAL_LENGTH))


def _template(source: Source, tokenizer: Any) -> PairTemplate:
    """Return the special tokens around a pair, and whether the second text has a type of its own."""
    body = tokenizer(MARK, add_special_tokens=False)["input_ids"]
    pair = tokenizer(MARK, MARK)
    ids, types = pair["input_ids"], pair.get("token_type_ids")
    size = len(body)
    places = [place for place in range(len(ids)) if ids[place : place + size] == body]
    if not size or len(places) != 2:
        raise StageError(
            f"{source.name}: its tokenizer does not put two texts one after the other into a pair"
        )
    first, second = places
    if types is not None and any(types) and types != [0] * second + [1] * (len(ids) - second):
        raise StageError(
            f"{source.name}: its tokenizer has other token types than 0 and, for the second text, 1"
        )
    pad = tokenizer.pad_token_id
    return PairTemplate(
        prefix=tuple(ids[:first]),
        middle=tuple(ids[first + size : second]),
        suffix=tuple(ids[second + size :]),
        pad_id=0 if pad is None else pad,
        type_ids=types is not None and any(types),
    )


def _contract(
    choice: TextChoice, template: PairTemplate, longest: int, vocabulary: int, separator: str | None
) -> TextContract:
    """Return the contract; without limits a query has up to half of the room, and a field what is left."""
    room = longest - len(template.prefix) - len(template.middle) - len(template.suffix)
    query = choice.query_tokens or room // 2
    names = list(choice.fields)
    if PLAIN not in dict(names):
        names.append((PLAIN, 0))
    return TextContract(
        version=1,
        query_max_chars=CHARS_A_TOKEN * query,
        query_max_tokens=query,
        fields=tuple(
            FieldSpec(name=name, max_chars=CHARS_A_TOKEN * (most or room), max_tokens=most or room)
            for name, most in names
        ),
        max_length=longest,
        vocabulary=vocabulary,
        template=template,
        separator=separator,
    )
