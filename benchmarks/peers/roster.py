"""Every reranker that is compared: where it comes from, how it is started and asked, and with which settings.

Knows commands, packages and request bodies; does not know processes, time or figures.
Invariant: each gets the settings that are best for it on these cores as far as its documentation goes, and says which.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.peers.lists import Ask

Level = Literal["library", "http"]
LEVELS: Final[tuple[Level, ...]] = ("library", "http")
OURS: Final = "shelfrank"
BASELINE: Final = "ONNX Runtime, padded"
_RUNTIME: Final = "onnxruntime==1.31.1"  # the one that shelfrank serves with, for all that have a choice
_TORCH: Final = "torch==2.13.0"

ENVIRONMENTS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "sentence-transformers": ((_TORCH,), ("sentence-transformers[onnx,openvino]==5.7.0", _RUNTIME)),
    "onnxruntime": (
        ("fastapi==0.163.1", "uvicorn[standard]==0.54.0", _RUNTIME, "tokenizers==0.23.3", "numpy==2.4.6"),
    ),
    "fastembed": (("fastembed==0.9.1", _RUNTIME),),
    "flashrank": (("FlashRank==0.2.10", _RUNTIME),),
    "litserve": (("litserve==0.2.19", _RUNTIME, "tokenizers==0.23.3"),),
    "triton": (("nvidia-pytriton==0.7.0", _RUNTIME, "tokenizers==0.23.3", "numpy==1.26.4"),),
    "infinity": ((_TORCH,), ("infinity-emb[server,torch,optimum]==0.0.78", _RUNTIME)),
}
"""Packages by environment, installed step by step: a torch that is not named brings gigabytes for another machine."""

EXPORTER: Final = "sentence-transformers"
"""The environment in which the graphs of all peers are made."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server is asked: path, body of a list, and scores in the order of the list out of an answer."""

    path: str
    body: Callable[[Ask], object]
    scores: Callable[[Any], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Peer:
    """One reranker. `command` has places for the names that `process.places` gives.

    `padding` names the rule of `lists.computed_tokens` by which it batches, None where that depends on timing.
    """

    name: str
    level: Level
    environment: str | None
    command: tuple[str, ...]
    precision: str
    settings: str
    padding: str | None
    dialect: Dialect | None = None

    @property
    def is_gain(self) -> bool:
        """Whether its scores are expected gains and not sigmoids of logits."""
        return self.dialect is _OWN

    @property
    def key(self) -> str:
        """Name and level, as both have peers of one name."""
        return f"{self.name} ({self.level})"


def _by_index(results: Sequence[dict[str, Any]], score: str) -> list[float]:
    return [float(each[score]) for each in sorted(results, key=lambda each: int(each["index"]))]


_COHERE: Final = Dialect(
    "/rerank",
    lambda ask: {"query": ask.query, "documents": ask.texts},
    lambda answer: _by_index(answer["results"], "relevance_score"),
)
_INFINITY: Final = Dialect(
    "/rerank",
    lambda ask: {"model": "own", "query": ask.query, "documents": ask.texts},
    lambda answer: _by_index(answer["results"], "relevance_score"),
)
_OWN: Final = Dialect(
    "/v1/rerank",
    lambda ask: {"query": ask.query, "documents": ask.products},
    lambda answer: _by_index(answer["results"], "relevance_score"),
)
_TEI: Final = Dialect(
    "/rerank",
    lambda ask: {"query": ask.query, "texts": ask.texts},
    lambda answer: _by_index(answer, "score"),
)
_KSERVE: Final = Dialect(
    "/v2/models/own/infer",
    lambda ask: {
        "inputs": [
            _strings("query", [ask.query] * len(ask.texts)),
            _strings("document", ask.texts),
        ]
    },
    lambda answer: [float(score) for score in answer["outputs"][0]["data"]],
)


def _strings(name: str, texts: Sequence[str]) -> dict[str, object]:
    return {"name": name, "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}


def _script(name: str, *arguments: str) -> tuple[str, ...]:
    return ("{python}", "{runners}/" + name + ".py", *arguments)


def _transformers(name: str, precision: str, backend: str, file: str) -> Peer:
    command = _script("lib_sentence_transformers", "{models}/fp32", "{threads}", backend, file)
    settings = "as it comes: sorted by characters, batches of 32"
    return Peer(
        f"sentence-transformers, {name}",
        "library",
        "sentence-transformers",
        command,
        precision,
        settings,
        "sorted 32",
    )


_DYNAMIC: Final = "dynamic int8"
_WHOLE: Final = "the list in one batch, padded to its longest; all cores in a run"
PEERS: Final = (
    Peer(
        OURS,
        "library",
        None,
        _script("lib_shelfrank", "{bundle}"),
        "static int8",
        "as it comes: the service's scorer and workers without HTTP",
        "none",
    ),
    Peer(
        BASELINE,
        "library",
        "onnxruntime",
        _script("lib_onnxruntime", "{models}/int8", "{threads}", "model.onnx"),
        _DYNAMIC,
        _WHOLE,
        "list",
    ),
    _transformers("torch", "fp32", "torch", "-"),
    _transformers("ONNX", "fp32", "onnx", "onnx/model.onnx"),
    _transformers("ONNX int8", _DYNAMIC, "onnx", "onnx/model_int8.onnx"),
    _transformers(
        "OpenVINO", "fp32 weights, bf16 where the CPU has it", "openvino", "openvino/openvino_model.xml"
    ),
    _transformers("OpenVINO int8", "static int8 (NNCF)", "openvino", "openvino/openvino_model_int8.xml"),
    Peer(
        "fastembed",
        "library",
        "fastembed",
        _script("lib_fastembed", "{models}/int8", "{threads}"),
        _DYNAMIC,
        "as it comes: batches of 64; threads = cores",
        "chunks 64",
    ),
    Peer(
        "FlashRank",
        "library",
        "flashrank",
        _script("lib_flashrank", "{models}/int8", "{longest}"),
        _DYNAMIC,
        "as it comes: the list in one batch, padded to its longest",
        "list",
    ),
    Peer(
        OURS,
        "http",
        None,
        (
            *("{python}", "-m", "service", "--port", "{port}", "--admin-port", "0", "--bundle", "{bundle}"),
            *("--cache-bytes", "0", "--drain-delay-s", "0"),
        ),
        "static int8",
        "as it comes, but without its score cache: the lists repeat",
        "none",
        _OWN,
    ),
    Peer(
        "FastAPI + ONNX Runtime",
        "http",
        "onnxruntime",
        _script("http_fastapi", "{models}/int8", "{port}", "{threads}"),
        _DYNAMIC,
        _WHOLE,
        "list",
        _COHERE,
    ),
    Peer(
        "LitServe",
        "http",
        "litserve",
        _script("http_litserve", "{models}/int8", "{port}", "{threads}"),
        _DYNAMIC,
        f"one worker; {_WHOLE}",
        "list",
        _COHERE,
    ),
    Peer(
        "Triton, python backend",
        "http",
        "triton",
        _script("http_triton", "{models}/int8", "{port}", "{threads}"),
        _DYNAMIC,
        f"one instance, dynamic batcher; {_WHOLE}",
        "list",
        _KSERVE,
    ),
    Peer(
        "infinity, ONNX engine",
        "http",
        "infinity",
        _script("http_infinity", "{models}/int8", "{port}"),
        _DYNAMIC,
        "batches of 32 as it comes; its disk cache off, as the lists repeat",
        None,
        _INFINITY,
    ),
    Peer(
        "TEI's rules (emulation), int8",
        "http",
        "onnxruntime",
        _script("http_tei", "{models}/int8", "{port}", "{threads}", "model.onnx"),
        _DYNAMIC,
        "lists up to 256 allowed, where 32 is its default; batches of 8, first in first out",
        "chunks 8",
        _TEI,
    ),
    Peer(
        "TEI's rules (emulation), fp32",
        "http",
        "onnxruntime",
        _script("http_tei", "{models}/fp32", "{port}", "{threads}", "onnx/model.onnx"),
        "fp32",
        "the same with the only precision that it admits by itself on this engine",
        "chunks 8",
        _TEI,
    ),
)
