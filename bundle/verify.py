"""Proves that a bundle computes what it computed when it was made.

Knows the graph's signature, the text contract and the golden rows; does not know which runtime runs them.
Invariant: a session is returned only after every golden row gave the recorded token ids and score.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bundle.errors import GoldenMismatch, SessionFailed, SignatureMismatch, VocabularyMismatch, WarmupFailed
from bundle.manifest import GraphSpec, Manifest, TextContract
from bundle.rows import Row, assemble, padded_length
from bundle.score import class_probabilities, relevance
from bundle.store import Bundle
from bundle.text import PairEncoder, Product
from bundle.words import pack_ids

INPUT_NAMES: Final = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT_NAME: Final = "logits"


class Tensor(Protocol):
    """An input or output of a graph, as `TensorSpec` describes it."""

    @property
    def name(self) -> str:
        """Its name in the graph."""

    @property
    def dtype(self) -> str:
        """Its type in numpy's words."""

    @property
    def shape(self) -> Sequence[str | int | None]:
        """Its dimensions; a free one is a string or None."""


class Session(Protocol):
    """A loaded graph, whatever runs it."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """What `run` is to be fed."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """What the graph computes."""

    def run(self, feeds: Mapping[str, NDArray[np.int64]], /) -> NDArray[np.float32]:
        """Return float32 logits [n] of int64 feeds [n, length]."""


AnySession = TypeVar("AnySession", bound=Session)
EXACT: Final = 1e-9  # two mathematical libraries differ in the last bits of a double, far below this
_INPUTS: Final = frozenset((name, "int64", (None, None)) for name in INPUT_NAMES)
_OUTPUTS: Final = frozenset({(OUTPUT_NAME, "float32", (None,))})


@dataclass(frozen=True, slots=True)
class GoldenAnswer:
    """What calibration and labels made of the recorded logit; `classes` is each label's probability by its name."""

    logit: float
    classes: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """One recorded pair: its texts, the token ids and the relevance score they must give.

    The graph may compute another score within the manifest's tolerance, as processors differ.
    From `answer` the score follows exactly; bundles written before it was known lack it.
    """

    query: str
    product: Product
    ids: tuple[int, ...]
    score: float
    answer: GoldenAnswer | None = None


def verify_bundle(
    bundle: Bundle, open_session: Callable[[bytes], AnySession], precision: str | None = None
) -> AnySession:
    """Open a session on the bundle's own bytes and return it once it has proved itself.

    The steps, each with its own error: text contract and tokenizer, session, signature, warm-up at the
    shortest and longest shape, the vocabulary's last row, calibration and labels, golden rows.
    KeyError for an absent precision.
    """
    manifest = bundle.manifest
    graph = manifest.graph(precision)
    encoder = PairEncoder(bundle.files[manifest.tokenizer], manifest.text)
    try:
        session = open_session(bundle.files[graph.file])
    except Exception as error:  # a runtime may raise anything
        raise SessionFailed(f"the runtime refused {graph.file}: {type(error).__name__}") from error
    _check_signature(session, graph)
    _warm_up(session, manifest.text)
    _check_vocabulary(session, manifest.text)
    golden = read_golden(bundle.files[manifest.golden.file])
    _check_answers(manifest, golden)
    _check_golden(session, encoder, manifest, golden)
    return session


def scores_of(session: Session, rows: Sequence[Row], manifest: Manifest) -> NDArray[np.float64]:
    """Return the relevance score of each row, float64 [n], computed one row at a time at its own shape."""
    logits = logits_of(session, rows, manifest.text)
    return relevance(class_probabilities(logits, manifest.calibration), manifest.labels)


def golden_row(
    session: Session, encoder: PairEncoder, manifest: Manifest, pair: tuple[str, Product]
) -> GoldenRow:
    """Record what a bundle makes of a pair of query and product."""
    query, product = pair
    row = encoder.encode(query, [product])[0]
    logit = float(logits_of(session, [row], manifest.text)[0])
    probabilities = class_probabilities([logit], manifest.calibration)
    names = (label.name for label in manifest.labels)
    return GoldenRow(
        query=query,
        product=product,
        ids=row.ids,
        score=float(relevance(probabilities, manifest.labels)[0]),
        answer=GoldenAnswer(logit, dict(zip(names, probabilities[0].tolist(), strict=True))),
    )


def logits_of(session: Session, rows: Sequence[Row], text: TextContract) -> NDArray[np.float32]:
    """Return the logit of each row, float32 [n], computed one row at a time at its own shape."""
    return np.concatenate(
        [
            session.run(assemble([row], text.template, padded_length(len(row), text.max_length)))
            for row in rows
        ]
    )


def read_golden(raw: bytes) -> list[GoldenRow]:
    """Return the rows of a golden file, one JSON object a line; GoldenMismatch if a line is none.

    Lone surrogates are allowed in texts: what a client may send is worth recording.
    """
    rows = []
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            document = json.loads(line)
            rows.append(
                GoldenRow(
                    query=_text(document["query"]),
                    product=Product(**{name: _text(text) for name, text in document["product"].items()}),
                    ids=tuple(int(token) for token in document["ids"]),
                    score=float(document["score"]),
                    answer=_answer(document),
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GoldenMismatch(f"line {number} of the golden file is no golden row") from error
    return rows


def dump_golden(rows: Iterable[GoldenRow]) -> bytes:
    """Return the golden file of these rows; empty product fields are left out."""
    lines = []
    for row in rows:
        texts = {name: text for name, text in row.product._asdict().items() if text}
        document = {"query": row.query, "product": texts, "ids": row.ids, "score": row.score}
        if row.answer is not None:
            document |= {"logit": row.answer.logit, "classes": dict(row.answer.classes)}
        lines.append(json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n")
    return "".join(lines).encode("ascii")


def _check_signature(session: Session, graph: GraphSpec) -> None:
    promised = _signature(graph.inputs), _signature(graph.outputs)
    if (_signature(session.inputs), _signature(session.outputs)) != promised:
        raise SignatureMismatch(f"{graph.file} has other inputs or outputs than the manifest says")
    if promised != (_INPUTS, _OUTPUTS):
        raise SignatureMismatch(
            f"{graph.file} must take int64 [n, length] {', '.join(INPUT_NAMES)} and give float32 [n] {OUTPUT_NAME}"
        )


def _signature(tensors: Iterable[Tensor]) -> frozenset[tuple[str, str, tuple[int | None, ...]]]:
    """Reduce tensors to what must agree: names, types and fixed dimensions, in any order."""
    return frozenset(
        (tensor.name, tensor.dtype, tuple(dim if isinstance(dim, int) else None for dim in tensor.shape))
        for tensor in tensors
    )


def _warm_up(session: Session, text: TextContract) -> None:
    fixed = len(text.template.prefix + text.template.middle + text.template.suffix)
    try:
        for length in (fixed, text.max_length):
            _run_filled(session, text, token=text.template.pad_id, length=length)
    except Exception as error:  # a runtime may raise anything
        raise WarmupFailed(f"the first run failed: {type(error).__name__}") from error


def _check_vocabulary(session: Session, text: TextContract) -> None:
    """Look up the last row the manifest promises; a runtime refuses an id beyond its table."""
    try:
        _run_filled(session, text, token=text.vocabulary - 1, length=text.max_length)
    except Exception as error:  # a runtime may raise anything
        raise VocabularyMismatch(f"the graph has no row for token id {text.vocabulary - 1}") from error


def _run_filled(session: Session, text: TextContract, *, token: int, length: int) -> None:
    template = text.template
    head = template.prefix + template.middle
    filling = (token,) * (length - len(head) - len(template.suffix))
    row = Row(pack_ids((*head, *filling, *template.suffix)), query_tokens=len(head), truncated=False)
    logits = session.run(assemble([row], template, padded_length(length, text.max_length)))
    if logits.shape != (1,) or not np.isfinite(logits).all():
        raise ValueError("expected one finite logit for one row")


def _check_golden(
    session: Session, encoder: PairEncoder, manifest: Manifest, golden: list[GoldenRow]
) -> None:
    if len(golden) != manifest.golden.rows:
        raise GoldenMismatch(f"expected {manifest.golden.rows} golden rows, found {len(golden)}")
    rows = [encoder.encode(row.query, [row.product])[0] for row in golden]
    for number, (row, recorded) in enumerate(zip(rows, golden, strict=True), start=1):
        if row.ids != recorded.ids:
            raise GoldenMismatch(f"golden row {number} gives other token ids than recorded")
    try:
        scores = scores_of(session, rows, manifest)
    except Exception as error:  # a runtime may raise anything
        raise GoldenMismatch(f"the golden rows cannot be scored: {type(error).__name__}") from error
    drift = np.abs(scores - [row.score for row in golden])
    if not (drift <= manifest.golden.tolerance).all():
        raise GoldenMismatch(
            f"golden row {int(drift.argmax()) + 1} is off by {drift.max():.2g}, "
            f"{manifest.golden.tolerance:.2g} is allowed"
        )


def _check_answers(manifest: Manifest, golden: list[GoldenRow]) -> None:
    """Make each recorded answer anew from its logit: nothing else tells that calibration and labels are as packed."""
    for number, row in enumerate(golden, start=1):
        if row.answer is None:
            continue
        probabilities = class_probabilities([row.answer.logit], manifest.calibration)
        expected = {"score": row.score, **row.answer.classes}
        found = {"score": float(relevance(probabilities, manifest.labels)[0])}
        found |= zip((label.name for label in manifest.labels), probabilities[0].tolist(), strict=True)
        if found.keys() != expected.keys() or any(abs(found[k] - expected[k]) > EXACT for k in found):
            raise GoldenMismatch(
                f"golden row {number} gets another answer of its logit: the manifest's calibration or labels "
                "are not those that the bundle was packed with; take the bundle from its source again"
            )


def _answer(document: Mapping[str, Any]) -> GoldenAnswer | None:
    if "logit" not in document:
        return None
    logit = float(document["logit"])
    if not math.isfinite(logit):
        raise ValueError("expected a finite logit")
    return GoldenAnswer(logit, {_text(name): float(share) for name, share in document["classes"].items()})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value
