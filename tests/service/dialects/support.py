"""What the tests of dialects share: a request that was scored, without an engine.

Knows the tiny bundle's manifest; does not know any dialect.
Invariant: the same logits give the same ranking as in the service.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from service.dialects.dialect import Dialect, ScoringRequest, ScoringResult
from service.domain.ranking import Cause, Ranking, rank_products
from service.errors import Reason, Refused
from service.settings import Settings
from tests.tiny import tiny_files, tiny_manifest

LIMITS = Settings(max_documents=5, max_query_chars=20, max_field_chars=50)
MANIFEST = tiny_manifest(tiny_files())
TEXTS = ["coffee mug", "red shoes", "red shoe"]
LOGITS = [-2.0, 3.0, 1.0]


def asked(dialect: Dialect, **fields: object) -> ScoringRequest:
    """Read a request of a query and TEXTS, unless `fields` say otherwise; None leaves a field out."""
    request = {"query": "red shoes", "documents": TEXTS, **fields}
    body = {name: value for name, value in request.items() if value is not None}
    return dialect.parse(json.dumps(body).encode(), LIMITS)


def scored(logits: Sequence[float] = LOGITS, failed: Sequence[int] = ()) -> ScoringResult:
    """A request whose pairs got these logits."""
    values = np.array(logits, dtype=np.float32)
    causes = np.zeros(len(values), np.int8)
    causes[list(failed)] = Cause.ENGINE
    places, unscored = rank_products(values, causes, MANIFEST)
    times_s = dict.fromkeys(("receive", "parse", "tokenize", "queue", "infer", "total"), 0.001)
    ranking = Ranking(products=places, logits=values, unscored=unscored, tokens=22)
    return ScoringResult(
        "r1", "tiny@1.0.0", "0123456789ab", MANIFEST, ranking, times_s, created_s=1_700_000_000
    )


def told(ask: ScoringRequest, what: ScoringResult | None = None) -> Any:
    """The answer to a request, parsed."""
    return json.loads(ask.answer(what or scored()))


def refusal(dialect: Dialect, **fields: object) -> tuple[int, Any]:
    """The status and the parsed body of the error that a request gets."""
    with pytest.raises(Refused) as caught:
        asked(dialect, **fields)
    return refused(dialect, caught.value.reason, caught.value.loc)


def refused(dialect: Dialect, reason: Reason, loc: tuple[str | int, ...] = ()) -> tuple[int, Any]:
    """The status and the parsed body of an error."""
    status, body = dialect.render_error(reason, loc, "r1")
    return status, json.loads(body)
