"""The manifest parser accepts one byte form of a valid manifest and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bundle.errors import ManifestInvalid
from bundle.manifest import MAX_MANIFEST_BYTES, Calibration, Manifest, dump_manifest, is_name, parse_manifest


@pytest.fixture(scope="module")
def raw(tiny_bundle: Path) -> bytes:
    """Give the bytes of a valid manifest."""
    return (tiny_bundle / "tiny" / "manifest.json").read_bytes()


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _edited(raw: bytes, path: str, value: object) -> bytes:
    """Set the value at a dotted path and return canonical bytes again."""
    document = json.loads(raw)
    *parents, last = path.split(".")
    node: Any = document
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(last) if isinstance(node, list) else last] = value
    return _canonical(document)


def test_round_trip(raw: bytes) -> None:
    """Dumping a parsed manifest gives the very bytes."""
    assert dump_manifest(parse_manifest(raw)) == raw


def test_is_frozen(raw: bytes) -> None:
    """A parsed manifest cannot be changed."""
    with pytest.raises(ValidationError):
        parse_manifest(raw).name = "other"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "1"),
        ("schema_version", True),
        ("unknown", 1),
        ("text.unknown", 1),
        ("name", "Tiny"),
        ("name", "a..b"),
        ("version", ""),
        ("version", "1/2"),
        ("files", {}),
        ("files.card", {"sha256": "0" * 64, "size": -1}),
        ("files.card", {"sha256": "A" * 64, "size": 1}),
        ("files.card", {"sha256": "0" * 63, "size": 1}),
        ("files.card", {"sha256": "0" * 64, "size": 1 << 60}),
        ("files.card", {"sha256": "0" * 64, "size": 1.0}),
        ("files.manifest.json", {"sha256": "0" * 64, "size": 1}),
        ("tokenizer", "missing.json"),
        ("tokenizer", "../tokenizer.json"),
        ("golden.file", "missing.jsonl"),
        ("golden.rows", 31),
        ("golden.rows", 129),
        ("golden.tolerance", 0.0),
        ("graphs", []),
        ("graphs.0.file", "a/b"),
        ("graphs.0.precision", "int4"),
        ("graphs.0.inputs.0.dtype", "int32"),
        ("default_precision", "int8"),
        ("labels", []),
        ("labels.0.gain", 0.5),
        ("labels.3.gain", 1.5),
        ("labels.1.name", "exact"),
        ("calibration.slope", 0.0),
        ("calibration.slope", -1.0),
        ("calibration.slope", None),
        ("calibration.thresholds", [0.0, 1.0]),
        ("calibration.thresholds", [0.0, 0.0, 1.0]),
        ("calibration.method", "platt"),
        ("text.version", 0),
        ("text.max_length", 13),
        ("text.max_length", 1 << 20),
        ("text.fields", []),
        ("text.fields.0.name", "price"),
        ("text.fields.1.name", "title"),
        ("text.fields.0.max_chars", 0),
        ("text.template.pad_id", -1),
        ("text.template.middle", [1_000_000]),
        ("provenance.seed", "7"),
        ("gates.x", "high"),
    ],
)
def test_bad_value_is_refused(raw: bytes, path: str, value: object) -> None:
    """A canonical document with one bad value is no manifest."""
    if path.startswith("files."):
        document = json.loads(raw)
        document["files"][path.removeprefix("files.")] = value
        edited = _canonical(document)
    else:
        edited = _edited(raw, path, value)

    with pytest.raises(ManifestInvalid):
        parse_manifest(edited)


@pytest.mark.parametrize("name", sorted(Manifest.model_fields.keys() - {"reference"}))
def test_every_key_is_required(raw: bytes, name: str) -> None:
    """Nothing about a bundle is left to a default, but the reference may be absent."""
    document = json.loads(raw)
    del document[name]

    with pytest.raises(ManifestInvalid):
        parse_manifest(_canonical(document))


REFERENCE = {
    "classes": [1, 0, 2, 4],
    "pairs": 7,
    "precision": "fp32",
    "sample": "seven pairs",
    "scores": [3, 4],
    "truncated": 0.5,
    "unknown": 0.25,
}


def test_a_reference_is_read_and_written(raw: bytes) -> None:
    """A manifest with a reference is accepted, with or without a share of unknown tokens, and keeps its bytes."""
    for reference in (REFERENCE, {key: value for key, value in REFERENCE.items() if key != "unknown"}):
        edited = _edited(raw, "reference", reference)
        manifest = parse_manifest(edited)

        assert manifest.reference is not None
        assert manifest.reference.scores == (3, 4)
        assert dump_manifest(manifest) == edited


def test_without_a_reference_nothing_is_written(raw: bytes) -> None:
    """A manifest without a reference has the one form that it had before references were known."""
    assert b"reference" not in raw
    assert parse_manifest(raw).reference is None
    with pytest.raises(ManifestInvalid, match="canonical"):
        parse_manifest(_edited(raw, "reference", None))


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": 8},
        {"scores": [3, 5]},
        {"scores": [7]},
        {"scores": [-1, 8]},
        {"classes": [3, 4]},
        {"classes": [1, 1, 1, 1]},
        {"truncated": 1.5},
        {"unknown": None},
        {"precision": "int4"},
    ],
    ids=str,
)
def test_a_reference_that_does_not_add_up_is_refused(raw: bytes, change: dict[str, object]) -> None:
    """Counts that are not those of all pairs, a class too few, and shares beyond 1 are refused."""
    with pytest.raises(ManifestInvalid):
        parse_manifest(_edited(raw, "reference", REFERENCE | change))


def test_duplicate_key_is_refused(raw: bytes) -> None:
    """A key that is given twice is refused even if both say the same."""
    doubled = raw.replace(b'"default_precision":"fp32",', b'"default_precision":"fp32",' * 2)
    assert doubled != raw

    with pytest.raises(ManifestInvalid):
        parse_manifest(doubled)


@pytest.mark.parametrize(
    "number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1", b"1.00", b"1e0", b"10e-1"]
)
def test_number_outside_the_canonical_form_is_refused(raw: bytes, number: bytes) -> None:
    """NaN, infinities and other spellings of a number are refused."""
    edited = raw.replace(b'"slope":1.0', b'"slope":' + number)
    assert edited != raw

    with pytest.raises(ManifestInvalid):
        parse_manifest(edited)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\n",
        lambda raw: b" " + raw,
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.replace(b":", b": ", 1),
        lambda raw: raw.replace(b"tiny", b"\\u0074iny", 1),
        lambda raw: raw.replace(b'"none"', b'"\\ud800"', 1),
        lambda raw: raw.replace(b'"none"', b'"\xff"', 1),
        lambda _: b"",
        lambda _: b"null\n",
        lambda _: b"[" * 100_000,
        lambda _: b" " * (MAX_MANIFEST_BYTES + 1),
    ],
)
def test_other_bytes_are_refused(raw: bytes, change: Any) -> None:
    """Other spacing, escapes, encodings and junk are refused."""
    changed = change(raw)
    assert changed != raw

    with pytest.raises(ManifestInvalid):
        parse_manifest(changed)


def test_message_does_not_repeat_the_document(raw: bytes) -> None:
    """What the document says stays out of the error."""
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(_edited(raw, "calibration.method", "s3cret"))

    assert "s3cret" not in str(caught.value)
    assert "calibration.method" in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_one_error(junk: bytes) -> None:
    """Whatever the bytes are, the only exception is ManifestInvalid."""
    with pytest.raises(ManifestInvalid):
        parse_manifest(junk)


@given(st.data())
def test_any_single_byte_change_is_refused_or_read_as_changed(tiny_bundle: Path, data: st.DataObject) -> None:
    """A changed byte never yields the same manifest."""
    raw = (tiny_bundle / "tiny" / "manifest.json").read_bytes()
    index = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[index]))
    changed = raw[:index] + bytes([byte]) + raw[index + 1 :]
    try:
        manifest = parse_manifest(changed)
    except ManifestInvalid:
        return

    assert manifest != parse_manifest(raw)


@pytest.mark.parametrize("name", ["a", "0", "default", "l2-h256_v1.2", "a" * 63])
def test_names(name: str) -> None:
    """Plain lower-case components are names."""
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a..b", "../a", "a/b", "/a", "a\\b", "A", "-a", ".a", "_a", "a b", "a\n", "a\0", "\u00e4",
        "\uff0e\uff0e", "%2e%2e", "a" * 64, "~", "c:", "con ", "a/", "\ud800",
    ],
)  # fmt: skip
def test_names_outside_the_grammar(name: str) -> None:
    """Whatever could leave the root, hide or fold is no name."""
    assert not is_name(name)


def test_graph_of_a_precision(raw: bytes) -> None:
    """Without a precision the default graph is meant; an absent one is a KeyError."""
    manifest = parse_manifest(raw)

    assert manifest.graph() == manifest.graph("fp32") == manifest.graphs[0]
    with pytest.raises(KeyError):
        manifest.graph("int8")


def test_python_values_are_not_coerced() -> None:
    """Strict also means strict for callers in Python."""
    with pytest.raises(ValidationError):
        Calibration(method="ordinal", slope="1", thresholds=(0.0,))  # type: ignore[arg-type] # the point of the test
