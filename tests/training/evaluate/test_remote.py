"""Services over HTTP: a real one gives what its bundle gives, and whatever else answers is one line of error."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the training environment is not installed")

from tests.service.support import serving
from tests.training.evaluate.judged import table
from training.data.judgments import read_judgments
from training.data.lists import JudgedList
from training.errors import StageError
from training.evaluate.remote import DOCUMENTS, Service
from training.evaluate.systems import of_bundle, of_service

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def lists(tmp_path: Path) -> list[JudgedList]:
    """A few judged lists."""
    return read_judgments(table(tmp_path / "own.csv"))[:4]


@contextmanager
def answering(answer: Callable[[str, dict[str, str], Any], Answer]) -> Iterator[str]:
    """A server whose answers a function makes of path, headers and body; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, headers, raw = answer(self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in ({"content-length": str(len(raw))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def results(*pairs: tuple[Any, Any]) -> Answer:
    """An answer of the usual shape."""
    found = [{"index": index, "relevance_score": score} for index, score in pairs]
    return 200, {}, json.dumps({"results": found}).encode()


def test_a_running_service_scores_as_its_bundle_does(tiny_bundle: Path, lists: list[JudgedList]) -> None:
    """The order and the score error of a real service are those of the bundle that it serves."""
    with serving(tiny_bundle) as process:
        remote = of_service(Service(f"http://127.0.0.1:{process.port}"), lists, 50)
    local = of_bundle(tiny_bundle / "tiny", lists, 50)

    assert remote.name == f"127.0.0.1:{process.port}"
    for theirs, ours in zip(remote.scores, local.scores, strict=True):
        assert np.corrcoef(np.argsort(np.argsort(theirs)), np.argsort(np.argsort(ours)))[0, 1] > 0.99
    assert remote.more["score error"].value == pytest.approx(local.more["score error"].value, abs=1e-4)


def test_a_service_refuses_in_its_own_words(tiny_bundle: Path, lists: list[JudgedList]) -> None:
    """A 4xx of a real service is one line with its status and its message."""
    with (
        serving(tiny_bundle, "--max-documents", "2") as process,
        pytest.raises(
            StageError, match=r"http://.* answers 422: 'There are more documents than this server accepts"
        ),
    ):
        Service(f"http://127.0.0.1:{process.port}").scores(lists[0])


def test_nobody_there_is_one_line(lists: list[JudgedList]) -> None:
    """A port that nobody listens on is an error that names the address and says so."""
    with pytest.raises(StageError, match=r"http://127.0.0.1:9 cannot be asked \(Connection refused\)"):
        Service("http://127.0.0.1:9").scores(lists[0])


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_url_is_told(url: str, lists: list[JudgedList]) -> None:
    """An address without scheme or host, or with a port that is none, is an error in one line."""
    with pytest.raises(StageError, match=r"expected http://HOST:PORT|cannot be asked"):
        Service(url).scores(lists[0])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (results((0, 0.5)), "gave 5 of 6 products of the query .* no score, first 'p0-1'"),
        (results(*((at, None) for at in range(6))), "does not answer as /v1/rerank does"),
        (results(*((at, 0.5) for at in range(7))), "does not answer as /v1/rerank does"),
        ((200, {}, b'{"scores": [1]}'), "does not answer as /v1/rerank does"),
        ((200, {}, b"[]"), "no JSON object"),
        ((200, {}, b"<html>"), "no JSON object"),
        ((400, {}, b'{"message": "no such\\nmodel"}'), r"answers 400: 'no such\\nmodel'"),
        ((404, {}, b"<h1>Not found</h1>\n<p>nginx</p>"), "answers 404: '<h1>Not found</h1>'"),
        ((301, {"location": "https://x/"}, b""), "answers 301: 'nothing'"),
        ((429, {"retry-after": "0"}, b"{}"), "answers 429"),
    ],
)
def test_what_is_no_ranking_is_one_line(answer: Answer, told: str, lists: list[JudgedList]) -> None:
    """Scores that are missing or none, another shape, and every error status end in one line that says which."""
    with answering(lambda *_: answer) as url, pytest.raises(StageError, match=told) as refused:
        Service(url).scores(lists[0])

    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(url)


def test_a_busy_service_is_asked_again(lists: list[JudgedList]) -> None:
    """After 429 or 503 the same request comes again, as soon as the service said."""
    answers = iter([(429, {"retry-after": "0"}, b"{}"), (503, {"retry-after": "0"}, b"{}")])
    whole = results(*((at, at / 10) for at in range(6)))

    with answering(lambda *_: next(answers, whole)) as url:
        assert Service(url).scores(lists[0]).tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_long_lists_go_in_parts(tmp_path: Path) -> None:
    """A list longer than a request goes in several, and its scores come back in its order."""
    count = DOCUMENTS + 3
    path = table(tmp_path / "own.csv", [f"1,hat,p{at},hat {at},{at % 4}," for at in range(count)])
    (judged,) = read_judgments(path)
    sizes = []

    def answer(_path: str, _headers: dict[str, str], body: Any) -> Answer:
        sizes.append(len(body["documents"]))
        numbers = [int(document["title"].split()[1]) for document in body["documents"]]
        return results(*reversed([(at, number) for at, number in enumerate(numbers)]))

    with answering(answer) as url:
        assert Service(url).scores(judged).tolist() == list(range(count))
    assert sizes == [DOCUMENTS, 3]


def test_other_services_get_what_they_know(lists: list[JudgedList]) -> None:
    """A path of one's own, a model, a key and products as plain texts are sent as told."""
    seen = []

    def answer(*told: Any) -> Answer:
        seen.append(told)
        return results(*((at, 0.5) for at in range(6)))

    with answering(answer) as url:
        service = Service(f"{url}/v2/rerank?x=1", model="big", key="s3cret", plain=True)
        service.scores(lists[0])

    ((path, headers, body),) = seen
    assert (path, headers["authorization"], body["model"]) == ("/v2/rerank?x=1", "Bearer s3cret", "big")
    assert body["documents"] == [product.title for product in lists[0].products]
    assert service.name == f"big at {url.removeprefix('http://')}"
