"""PURE. Normalizes a malformed request: numbers and lists in place of texts, nulls, lone surrogates.

Knows JSON and the keys that hold documents and texts; does not know the types of any API, nor limits.
Invariant: an object stays an object, its documents keep their positions, and what is well-formed is kept as it came.

All of it works on raw JSON, so that numbers keep their spelling, and the types of the API decide later.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from bundle import Product

FIELDS: Final = frozenset(Product._fields)
_IDENTIFYING: Final = FIELDS | {"id"}
"""Fields of which a product needs at least one."""

LISTS: Final = frozenset(
    {"documents", "texts", "products", "passages", "items", "queries", "text_1", "text_2", "data_1", "data_2"}
)
TEXTS: Final = LISTS | {"query"}
PAIRS: Final = "inputs"
OPTIONS: Final = frozenset(
    {"top_n", "top_k", "return_documents", "return_text", "raw_scores", "use_activation", "activation"}
)
"""Numbers and switches, which some clients write as texts."""


_NULL: Final = Raw(b"null")
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_LIST: Final = msgspec.json.Decoder(list[Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_NUMBER: Final = frozenset("-0123456789")
_ID_DIGITS: Final = 20  # of an integer of 64 bits, its sign included
_WRITTEN: Final = re.compile(rb'"([tT]rue|[fF]alse|0|[1-9][0-9]{0,8})"')
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def replace_lone_surrogates(body: bytes) -> bytes:
    r"""Return a body in which every escape of half a surrogate pair is one of U+FFFD.

    >>> print(replace_lone_surrogates(rb'"\ud83d \ud83d\ude00 \\ud83d"').decode())
    "\ufffd \ud83d\ude00 \\ud83d"
    """
    if _SURROGATE.search(body) is None:
        return body
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)


def normalized(body: bytes, normalize: Callable[[bytes], bytes] | None = None) -> bytes | None:
    """Return a request in normalized form; None if that is the same, or if it is no object."""
    try:
        whole = (normalize or normalize_request)(replace_lone_surrogates(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if whole == body else whole


def keys_of(body: bytes) -> list[str]:
    """Return the keys that a request gives; none if it cannot be read."""
    try:
        return list(given_fields(replace_lone_surrogates(body)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def normalize_request(body: bytes) -> bytes:
    """Return a request without its nulls, whose documents, query and options are what they stand for."""
    return msgspec.json.encode({name: _value(name, value) for name, value in given_fields(body).items()})


def normalize_product(body: bytes) -> bytes:
    """Return a product whose fields are texts wherever they stand for some."""
    return msgspec.json.encode(_fields(_OBJECT.decode(body)))


def given_fields(body: bytes) -> dict[str, Raw]:
    """Return the keys of an object with their values, unread; what is null is not given. Raises as msgspec does."""
    return {name: value for name, value in _OBJECT.decode(body).items() if value != _NULL}


def as_text(value: Raw) -> str | None:
    r"""Return the text that a value stands for: a number as it is written, the texts of a list by lines, or None.

    >>> [as_text(Raw(raw)) for raw in (b'"a"', b"1e5", b'["a", null, 2, ["b"]]', b"[]", b"true", b"{}")]
    ['a', '1e5', 'a\n2', '', None, None]
    """
    first = _first(value)
    if first == "[":
        texts = [as_text(part) for part in _LIST.decode(value) if _first(part) != "["]
        return "\n".join(text for text in texts if text)
    if first == '"':
        return _TEXT.decode(value)
    return str(value, "ascii") if first in _NUMBER else None


def _value(name: str, value: Raw) -> object:
    is_list = _first(value) == "["
    if is_list and name in LISTS:
        return _documents(_LIST.decode(value))
    if is_list and name == PAIRS:
        return [_pair(entry) for entry in _LIST.decode(value)]
    if name in OPTIONS:
        written = _WRITTEN.fullmatch(value)
        return Raw(written[1].lower()) if written else value
    if name in TEXTS and _first(value) == "{":
        return _fields(_OBJECT.decode(value))
    return _scalar(value) if name in TEXTS else value


def _documents(entries: Sequence[Raw]) -> list[object]:
    """Normalize documents; one without a text becomes an empty text, so that the others are still ranked."""
    normalized = [
        _fields(_OBJECT.decode(entry)) if _first(entry) == "{" else as_text(entry) or "" for entry in entries
    ]
    if not any(isinstance(document, str) or document.keys() & FIELDS for document in normalized):
        return list(normalized)
    return [
        document if isinstance(document, str) or document.keys() & _IDENTIFYING else {**document, "text": ""}
        for document in normalized
    ]


def _fields(product: Mapping[str, Raw]) -> dict[str, object]:
    """Return a product with its fields as texts and without those that stand for none."""
    fields = {
        name: as_text(value) if name in FIELDS else as_id(value) if name == "id" else value
        for name, value in product.items()
    }
    return {name: value for name, value in fields.items() if value is not None and value != _NULL}


def _pair(entry: Raw) -> object:
    """Return two texts that are one of TEI's pairs; what is none stays."""
    is_list = _first(entry) == "["
    return [as_text(text) or "" for text in _LIST.decode(entry)] if is_list else _scalar(entry)


def _scalar(value: Raw) -> object:
    """Return a number as its text, and all else as it is."""
    return str(value, "ascii") if _first(value) in _NUMBER else value


def as_id(value: Raw) -> object:
    """Return an id; a number that is no integer of 64 bits comes back as text, just as it was written."""
    if _first(value) not in _NUMBER:
        return value
    digits = str(value, "ascii")
    is_integer = digits.lstrip("-").isdigit() and len(digits) <= _ID_DIGITS
    return value if is_integer and -(2**63) <= int(digits) < 2**63 else digits


def _first(value: Raw) -> str:
    return chr(memoryview(value)[0])
