"""PURE. What every dialect is made of: a request to score, what came of it, and how to say no.

Knows the service's own types; does not know any one API.
Invariant: a score is written as a decimal with a dot, and what could not be scored comes last, below all that was.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from bundle import Manifest
from service.api.schema import check_query, decode, to_products
from service.domain import ranking
from service.domain.budget import NO_REQUESTED_TERMS, RequestedTerms
from service.domain.query import Document, RequestedProduct
from service.domain.ranking import Ranking
from service.errors import Location, Reason, Refused
from service.settings import Settings
from service.telemetry.meters import DialectName

AtLeastOne = Annotated[int, Meta(ge=1)]
ErrorReply = tuple[int, bytes]
RenderError = Callable[[Reason, Location, str], ErrorReply]
"""Writes the status and the body of an error, of its reason, its place and the request's id."""
Value = TypeVar("Value")

NO_EFFECT_KEYS: Final = frozenset(
    {
        "max_chunks_per_doc",
        "max_tokens_per_doc",
        "max_tokens_per_query",
        "request_id",
        "truncate_prompt_tokens",
        "truncation",
        "truncation_side",
        "user",
    }
)
"""Keys that other APIs document and that have no meaning here, at whatever path."""

_COMMON_KEYS: Final = NO_EFFECT_KEYS | {"model", "priority", "truncate", "truncation_direction"}


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """A request that was scored, and the facts that an answer may name."""

    id: str
    model: str
    bundle: str
    manifest: Manifest
    ranking: Ranking
    times_s: Mapping[str, float]
    created_s: int


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A request in any dialect: each query with its products, and how its answer is written.

    `model` is the model that it insists on, if any; `measured` asks how much of each text is read; `requested_terms` is what its
    body says of budget, priority and failure; `ignored` are its unknown keys.
    """

    groups: Sequence[tuple[str, Sequence[RequestedProduct]]]
    answer: Callable[[ScoringResult], bytes]
    model: str | None = None
    measured: bool = False
    requested_terms: RequestedTerms = NO_REQUESTED_TERMS
    ignored: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API that is answered here: `convert` takes the `request` that a body is decoded to."""

    name: DialectName
    request: type[Struct]
    convert: Callable[[Any, Settings], ScoringRequest]  # Any, as each has a request type of its own
    render_error: RenderError

    def parse(self, body: bytes, limits: Settings) -> ScoringRequest:
        """Read a request; Refused if it is none of this API."""
        return self.convert(decode(_decoder(self.request), body), limits)

    def unknown(self, keys: Collection[str]) -> int:
        """Return how many of a request's keys are unknown here."""
        return len(set(keys) - set(self.request.__struct_fields__) - _COMMON_KEYS)


_decoder = cache(msgspec.json.Decoder)  # one for each request type


def scoring_request(
    query: str,
    documents: Sequence[str | Document],
    limits: Settings,
    answer: Callable[[ScoringResult], bytes],
    name: str = "documents",
) -> ScoringRequest:
    """Return one query and its documents, which stand under `name`, as a request to score."""
    check_query(query, limits, "query")
    return ScoringRequest([(query, to_products(documents, limits, name))], answer)


def pair_up(
    queries: Sequence[str], texts: Sequence[str], limits: Settings, names: tuple[str, str]
) -> list[tuple[str, list[RequestedProduct]]]:
    """Pair one query with all texts, one text with all queries, or as many of both; adjacent equal queries join."""
    if 1 not in {len(queries), len(texts)} and len(queries) != len(texts):
        raise Refused(Reason.UNPAIRED_TEXTS)
    if len(queries) > limits.max_documents:
        raise Refused(Reason.TOO_MANY_DOCUMENTS, (names[0],))
    for index, query in enumerate(queries):
        check_query(query, limits, names[0], index)
    products = to_products(texts, limits, names[1])
    pairs = max(len(queries), len(products)) if queries and products else 0
    both = zip(_repeated(queries, pairs), _repeated(products, pairs), strict=True)
    return [
        (query, [product for _, product in group])
        for query, group in itertools.groupby(both, lambda pair: pair[0])
    ]


def _repeated(values: Sequence[Value], times: int) -> Sequence[Value]:
    return [values[0]] * times if len(values) == 1 else values[:times]


def decimal(value: float) -> Raw:
    """Write a number as JSON with a dot and without an exponent."""
    return Raw(ranking.decimal(value))


def best_first(scored: ScoringResult, top: int | None, *, raw: bool = False) -> list[tuple[int, Raw]]:
    """Return index and score of the best documents; `raw` gives logits, and is Refused where one is missing."""
    products = scored.ranking.products
    if not raw:
        return [(ranked.index, decimal(ranked.score)) for ranked in products[:top]]
    logits = finite_logits(scored)
    order = np.argsort(-logits, kind="stable")[:top].tolist()
    return [(index, decimal(logits[index])) for index in order]


def scores_in_order(scored: ScoringResult, *, raw: bool = False) -> list[Raw]:
    """Return the score of each pair in the order of the request."""
    return [score for _, score in sorted(best_first(scored, None, raw=raw), key=lambda pair: pair[0])]


def finite_logits(scored: ScoringResult) -> NDArray[np.float32]:
    """Return all logits; Refused if the engine failed on one, as JSON has no number to say so."""
    if scored.ranking.unscored.total:
        raise Refused(Reason.UNSCORED)
    return scored.ranking.logits


def as_object(document: str | Document) -> Document:
    """Return a document as an object, as clients expect of one that comes back."""
    return Document(text=document) if isinstance(document, str) else document
