"""Plain HTTP: the bodies that applications send, and curl where it is installed.

Knows what Open WebUI, Dify, RAGFlow, SiliconFlow, Elasticsearch and llama.cpp send; does not know what is right.
Invariant: every request names a model that is not served here, but curl's, which names none.
"""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from clients.probe import MODEL, Ranking, Row, report

Body = Callable[[str, list[str]], dict[str, Any]]
TIMEOUT_S: Final = 30
JSON: Final = {"Content-Type": "application/json", "Authorization": "Bearer any"}


def open_webui(query: str, documents: list[str]) -> dict[str, Any]:
    """Open WebUI's reranking engine "external"."""
    return {"model": MODEL, "query": query, "documents": documents, "top_n": len(documents)}


def dify(query: str, documents: list[str]) -> dict[str, Any]:
    """Dify's provider "OpenAI-API-compatible", of which a null top_n is the usual case."""
    return {"model": MODEL, "query": query, "documents": documents, "top_n": None, "return_documents": True}


def ragflow_xinference(query: str, documents: list[str]) -> dict[str, Any]:
    """RAGFlow's provider "Xinference", which writes its switches as texts."""
    return {
        "model": MODEL,
        "query": query,
        "return_documents": "true",
        "return_len": "true",
        "documents": documents,
    }


def siliconflow(query: str, documents: list[str]) -> dict[str, Any]:
    """SiliconFlow's request with all its options, as RAGFlow sends the last two."""
    return {
        "model": "BAAI/bge-reranker-v2-m3",
        "query": query,
        "documents": documents,
        "instruction": "Please rerank the documents based on the query.",
        "top_n": len(documents),
        "return_documents": False,
        "max_chunks_per_doc": 1024,
        "overlap_tokens": 80,
    }


def llama_cpp(query: str, documents: list[str]) -> dict[str, Any]:
    """The request of llama.cpp's server, and so of the applications that are written for it."""
    return {"model": "some-model", "query": query, "top_n": len(documents), "documents": documents}


def openshift_ai(query: str, documents: list[str]) -> dict[str, Any]:
    """Elasticsearch's inference service "openshift_ai" with all that it may send."""
    return {
        "model": MODEL,
        "query": query,
        "documents": documents,
        "top_n": len(documents),
        "return_documents": True,
    }


def posted(body: Body) -> Callable[[str, str, list[str]], Ranking]:
    """Return what asks with a body, and reads the answer as all these applications do."""

    def ask(url: str, query: str, documents: list[str]) -> Ranking:
        content = json.dumps(body(query, documents)).encode()
        request = urllib.request.Request(url, content, JSON)  # noqa: S310  the address that was given
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  as above
            return _results(json.load(answer))

    return ask


def curl(url: str, query: str, documents: list[str]) -> Ranking:
    """Curl with --http2, which asks for an upgrade, as over cleartext it has to."""
    headers = [part for name, value in JSON.items() for part in ("--header", f"{name}: {value}")]
    body = json.dumps({"query": query, "documents": documents})
    command = ["curl", "--http2", "--silent", "--show-error", "--data", body, *headers, url]
    return _results(json.loads(_said(command)))


def _results(answer: dict[str, Any]) -> Ranking:
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


def _said(command: list[str]) -> str:
    return subprocess.run(  # noqa: S603  our own arguments
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    ).stdout


if __name__ == "__main__":
    path = "{url}/v1/rerank"
    report(
        Row("Open WebUI (external)", "", "RAG_EXTERNAL_RERANKER_URL", path, posted(open_webui)),
        Row("Dify (OpenAI-API-compatible)", "", "POST", path, posted(dify)),
        Row("RAGFlow (OpenAI-API-Compatible)", "", "Base url", path, posted(open_webui)),
        Row("RAGFlow (Xinference)", "", "Base url", path, posted(ragflow_xinference)),
        Row("SiliconFlow", "", "POST", path, posted(siliconflow)),
        Row("Elasticsearch (openshift_ai)", "", "POST", path, posted(openshift_ai)),
        Row("llama.cpp", "", "POST", path, posted(llama_cpp)),
        Row("llama.cpp", "", "POST", "{url}/v1/reranking", posted(llama_cpp)),
    )
    if shutil.which("curl"):
        told = _said(["curl", "--version"]).split()[1]
        report(Row("curl --http2", told, "POST", path, curl))
