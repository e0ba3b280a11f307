"""The typed manifest of a bundle, its strict parser and its one canonical form.

Knows what a manifest may say; does not know where it is stored or whether what it says is true.
Invariant: `dump_manifest(parse_manifest(raw)) == raw` for every `raw` that is accepted.
"""

import json
import re
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bundle.errors import ManifestInvalid
from bundle.layout import EncoderLayout

MANIFEST_FILE: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def is_name(text: str) -> bool:
    """Say whether `text` may name a bundle or a version: one lower-case path component, no `..`."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("expected 1 to 63 of a-z 0-9 . _ - starting with a letter or digit, without '..'")
    return text


def _file_name(text: str) -> str:
    if _FILE_NAME.fullmatch(text) is None or text.lower() == MANIFEST_FILE:
        raise ValueError(f"expected a plain file name of 1 to 63 characters other than {MANIFEST_FILE}")
    return text


Name = Annotated[str, AfterValidator(_name)]
FileName = Annotated[str, AfterValidator(_file_name)]
Text = Annotated[str, Field(max_length=4096)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TokenId = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]
FieldName = Literal["title", "brand", "color", "category", "bullets", "description", "text"]
Precision = Literal["fp32", "int8", "fp16"]


class _Record(BaseModel):
    """A frozen, strict record: unknown keys, coercions, NaN and infinities are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Record):
    """Content of one file: sha256 in lower-case hex and size in bytes."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0, lt=1 << 40)]


class TensorSpec(_Record):
    """One input or output of a graph; a string in `shape` is a free dimension."""

    name: Text
    dtype: Literal["int64", "float32"]
    shape: tuple[str | int, ...]


class GraphSpec(_Record):
    """One ONNX file and the signature it promises; `layout` says where its weights lie, if it is a plain encoder."""

    file: FileName
    precision: Precision
    opset: Annotated[int, Field(ge=1)]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layout: EncoderLayout | None = None


class FieldSpec(_Record):
    """One product field: clipped to `max_chars` before and to `max_tokens` after tokenizing."""

    name: FieldName
    max_chars: Annotated[int, Field(gt=0)]
    max_tokens: Annotated[int, Field(gt=0)]


class PairTemplate(_Record):
    """Token ids around a pair: prefix, query, middle, product, suffix.

    Type ids are 0 up to and including `middle` and 1 after it, or 0 everywhere without `type_ids`.
    """

    prefix: tuple[TokenId, ...]
    middle: tuple[TokenId, ...]
    suffix: tuple[TokenId, ...]
    pad_id: TokenId
    type_ids: bool


class TextContract(_Record):
    """How a query and a product become at most `max_length` token ids below `vocabulary`.

    Each field is tokenized by itself; with a `separator` they are read as one text, in which it stands between the
    fields that are not blank, each without white space at its ends.
    """

    version: Annotated[int, Field(ge=1)]
    query_max_chars: Annotated[int, Field(gt=0)]
    query_max_tokens: Annotated[int, Field(gt=0)]
    fields: Annotated[tuple[FieldSpec, ...], Field(min_length=1)]
    max_length: Annotated[int, Field(gt=0, le=8192)]
    vocabulary: Annotated[int, Field(gt=0)]
    template: PairTemplate
    separator: Annotated[str, Field(pattern=r"^\s", max_length=16)] | None = None

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError("a product field is listed twice")
        template = self.template
        fixed = (*template.prefix, *template.middle, *template.suffix)
        if max((*fixed, template.pad_id)) >= self.vocabulary:
            raise ValueError("the template uses an id outside the vocabulary")
        if len(fixed) + self.query_max_tokens >= self.max_length:
            raise ValueError("max_length leaves no room for a product beside the longest query")
        return self


class Label(_Record):
    """One relevance class; `gain` is what it adds to the score, in [0, 1]."""

    name: Text
    gain: Ratio


class Calibration(_Record):
    """Proportional odds: P(class >= k) = sigmoid(slope * logit - thresholds[k - 1])."""

    method: Literal["ordinal"]
    slope: Annotated[float, Field(gt=0)]
    thresholds: Annotated[tuple[float, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if any(low >= high for low, high in pairwise(self.thresholds)):
            raise ValueError("thresholds do not ascend strictly")
        return self


class QualityRow(_Record):
    """One measured figure with its confidence interval, over `lists` ranked lists."""

    dataset: Text
    metric: Text
    model: Text
    value: float
    low: float
    high: float
    lists: Annotated[int, Field(ge=0)]


class Quality(_Record):
    """Measured quality: the gain map in words, the data's hash and the figures."""

    gain_map: Text
    data_sha256: Sha256
    rows: tuple[QualityRow, ...]


class Golden(_Record):
    """The golden file, its number of rows and the largest allowed score difference."""

    file: FileName
    rows: Annotated[int, Field(ge=32, le=128)]
    tolerance: Annotated[float, Field(gt=0)]


class ScoreReference(_Record):
    """What the model makes of a sample of pairs, told in `sample`: live traffic is compared with it.

    `scores` counts the pairs in so many equal bins over [0, 1], the last of which holds 1 itself.
    `classes` counts them by their most probable class, in the order of the labels.
    `truncated` is the share of pairs that lost text, `unknown` that of tokens without a piece in the vocabulary,
    which is absent if the tokenizer has no token for them.
    """

    sample: Text
    precision: Precision
    pairs: Annotated[int, Field(gt=0)]
    scores: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2, max_length=100)]
    classes: tuple[Annotated[int, Field(ge=0)], ...]
    truncated: Ratio
    unknown: Ratio | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.scores) != self.pairs or sum(self.classes) != self.pairs:
            raise ValueError("the counts of scores and of classes are not those of all pairs")
        return self


class Provenance(_Record):
    """Where the model comes from; `created` is an ISO 8601 time in UTC."""

    created: Text
    commit: Text
    recipe_sha256: Sha256
    data_sha256: Sha256
    teacher: Text
    seed: int
    libraries: dict[str, Text]
    licences: tuple[Text, ...]


class Manifest(_Record):
    """Everything a bundle says about itself; labels are in ascending relevance.

    `files` may be empty in a draft that `write_bundle` completes, never in a file.
    """

    schema_version: Literal[1]
    name: Name
    version: Name
    files: dict[FileName, FileEntry]
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1)]
    default_precision: Precision
    text: TextContract
    tokenizer: FileName
    labels: Annotated[tuple[Label, ...], Field(min_length=2)]
    calibration: Calibration
    quality: Quality
    golden: Golden
    provenance: Provenance
    gates: dict[str, float]
    reference: ScoreReference | None = None

    def graph(self, precision: str | None = None) -> GraphSpec:
        """Return the graph of a precision, the default one if none is given; KeyError if absent."""
        wanted = precision or self.default_precision
        by_precision: dict[str, GraphSpec] = {graph.precision: graph for graph in self.graphs}
        return by_precision[wanted]

    def referenced(self) -> frozenset[str]:
        """Return the names of the files that the manifest relies on."""
        return frozenset({self.tokenizer, self.golden.file, *(graph.file for graph in self.graphs)})

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        precisions = [graph.precision for graph in self.graphs]
        if len(set(precisions)) != len(precisions) or self.default_precision not in precisions:
            raise ValueError("graphs need distinct precisions, the default one among them")
        if len(self.calibration.thresholds) != len(self.labels) - 1:
            raise ValueError("calibration needs one threshold fewer than there are labels")
        if self.reference is not None and len(self.reference.classes) != len(self.labels):
            raise ValueError("the reference needs one count for each label")
        if any(low.gain > high.gain for low, high in pairwise(self.labels)):
            raise ValueError("labels are not in ascending order of gain")
        if len({label.name for label in self.labels}) != len(self.labels):
            raise ValueError("two labels have the same name")
        if self.files and not self.referenced() <= self.files.keys():
            raise ValueError("files lacks a file that the manifest relies on")
        return self


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes: JSON with sorted keys, no spaces, UTF-8, one final newline.

    What is None is left out, so a manifest without an optional part is written as before that part was known.
    """
    document = manifest.model_dump(mode="json", exclude_none=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def parse_manifest(raw: bytes) -> Manifest:
    """Return the manifest that `raw` is the canonical form of, or raise ManifestInvalid.

    Only one byte sequence is accepted for a manifest.
    That refuses duplicate keys, NaN, other spacing and other number formats without a rule for each.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{MANIFEST_FILE} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise ManifestInvalid(f"{MANIFEST_FILE}: {where or 'document'}: {first['msg'][:200]}") from error
    if dump_manifest(manifest) != raw:
        raise ManifestInvalid(f"{MANIFEST_FILE} is not in canonical form; rewrite it with write_bundle")
    if not manifest.files:
        raise ManifestInvalid(f"{MANIFEST_FILE} names no files")
    return manifest
