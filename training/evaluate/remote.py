"""Has a running service score judged lists, over HTTP as its clients do.

Knows the shape of /v1/rerank, which many rerankers share; does not know models or figures.
Invariant: what comes back is one finite score for every product that was sent, or a StageError in one line.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bundle.text import Product
from training.data.formats import shown
from training.data.lists import JudgedList
from training.data.sources import FIELDS
from training.errors import StageError

PATH = "/v1/rerank"
DOCUMENTS = 100  # of a request
TIMEOUT_S = 60.0
BUSY = (429, 503)
TRIES = 5  # of a request, while the service is busy
LONGEST_WAIT_S = 10.0
# What shelfrank reads, and others pass over: no document is left unscored for want of time.
HEADERS = {"x-budget-ms": "60000", "x-on-failure": "error", "x-priority": "offline"}


@dataclass(frozen=True)
class Service:
    """A service at a URL; without a path, the one of `/v1/rerank`.

    `plain` sends each product as one text, for services that know no fields; `model` and `key` are sent if given.
    """

    url: str
    model: str = ""
    key: str = ""
    plain: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        host = urlsplit(self.url).netloc.rpartition("@")[2]
        return f"{self.model} at {host}" if self.model else host

    def scores(self, judged: JudgedList) -> NDArray[np.float64]:
        """Return the scores of a list's products, in its order."""
        starts = range(0, len(judged), DOCUMENTS)
        return np.concatenate([self._scored(judged, start) for start in starts])

    def _scored(self, judged: JudgedList, start: int) -> NDArray[np.float64]:
        products = judged.products[start : start + DOCUMENTS]
        documents = [_text(product) if self.plain else _fields(product) for product in products]
        body = {"query": judged.query, "documents": documents} | ({"model": self.model} if self.model else {})
        results = self._asked(json.dumps(body).encode()).get("results")
        scores = np.full(len(products), math.nan)
        try:
            for result in results:
                scores[_place(result["index"], len(products))] = float(result["relevance_score"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._fault(
                f"does not answer as {PATH} does: no results with index and relevance_score"
            ) from error
        if missing := np.flatnonzero(~np.isfinite(scores)).tolist():
            lost = judged.product_ids[start + missing[0]]
            raise self._fault(
                f"gave {len(missing)} of {len(products)} products of the query {shown(judged.query)} no score, "
                f"first {shown(lost)}"
            )
        return scores

    def _asked(self, body: bytes) -> dict[str, Any]:
        """Return the answer's object, asking again while the service says that it is busy."""
        for attempt in range(1, TRIES + 1):
            status, wait_s, raw = self._sent(body)
            if status not in BUSY or attempt == TRIES:
                break
            time.sleep(wait_s)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if status != 200:
            raise self._fault(f"answers {status}: {_reason(answer, raw)}")
        if not isinstance(answer, dict):
            raise self._fault(f"does not answer as {PATH} does: no JSON object")
        return answer

    def _sent(self, body: bytes) -> tuple[int, float, bytes]:
        """Return status, seconds to wait before another try, and body of the answer."""
        parts = urlsplit(self.url)
        kind = {"http": HTTPConnection, "https": HTTPSConnection}.get(parts.scheme)
        if kind is None or not parts.hostname:
            raise StageError(f"--url {shown(self.url)}: expected http://HOST:PORT or https://HOST")
        headers = HEADERS | {"content-type": "application/json"}
        headers |= {"authorization": f"Bearer {self.key}"} if self.key else {}
        target = (parts.path if parts.path.strip("/") else PATH) + (f"?{parts.query}" if parts.query else "")
        try:
            connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
            try:
                connection.request("POST", target, body, headers)
                answer = connection.getresponse()
                return answer.status, _wait_s(answer.getheader("retry-after")), answer.read()
            finally:
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}".strip()
            raise self._fault(f"cannot be asked ({reason})") from error

    def _fault(self, problem: str) -> StageError:
        return StageError(f"{self.url} {problem}")


def _fields(product: Product) -> dict[str, str]:
    return {name: text for name in FIELDS if (text := getattr(product, name))}


def _text(product: Product) -> str:
    return "\n".join(_fields(product).values())


def _place(index: Any, count: int) -> int:
    if type(index) is not int or not 0 <= index < count:
        raise ValueError("an index that no document has")
    return index


def _wait_s(told: str | None) -> float:
    return min(float(told), LONGEST_WAIT_S) if told and told.isdecimal() else 1.0


def _reason(answer: Any, raw: bytes) -> str:
    """Return what an error says of itself: its message, whatever the service calls it, or its first line."""
    for name in ("message", "detail", "error"):
        if isinstance(answer, dict) and answer.get(name):
            return shown(answer[name])
    return shown(raw[:200].decode("utf-8", "replace").strip().partition("\n")[0] or "nothing")
