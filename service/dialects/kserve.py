"""PURE. The Open Inference Protocol (KServe v2), with the binary inputs of Triton's extension.

Knows tensors, metadata and errors of that protocol; does not know who scores.
Invariant: `query` and `document` are tensors of texts, `score` and `label` come back in the documents' shape.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from bundle import Manifest
from service.api.schema import decode
from service.dialects.dialect import ErrorReply, ScoringRequest, ScoringResult, pair_up, scores_in_order
from service.errors import Location, Reason, Refused, error_message
from service.settings import Settings
from service.telemetry.model_stats import DurationSum, ModelStats

INPUTS: Final = ("query", "document")
OUTPUTS: Final = {"score": "FP32", "label": "BYTES"}
TYPES: Final = {"FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}
EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
PLATFORM: Final = "onnxruntime_onnx"
Identifier = Annotated[str, Meta(max_length=256)]


class Tensor(Struct):
    """An input; its texts are in `data`, nested or flat, or in the bytes after the JSON."""

    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=2**31)]], Meta(min_length=1, max_length=2)]
    datatype: str
    data: list[str | list[str]] | None = None
    parameters: dict[str, Any] | None = None


class Wanted(Struct):
    """An output that is asked for."""

    name: str


class InferRequest(Struct):
    """A request; its parameters have no meaning here."""

    inputs: list[Tensor]
    outputs: list[Wanted] | None = None
    id: Identifier | None = None


class IndexRequest(Struct):
    """A request for the repository's index."""

    ready: bool | None = None


_INDEX: Final = msgspec.json.Decoder(IndexRequest)
_INFER: Final = msgspec.json.Decoder(InferRequest)


def parse_infer(body: bytes, limits: Settings, *, json_bytes: int | None = None) -> ScoringRequest:
    """Read a request; `json_bytes` of the body are JSON, what follows are the inputs' bytes."""
    request = decode(_INFER, body[:json_bytes])
    rest = b"" if json_bytes is None else body[json_bytes:]
    texts: dict[str, list[str]] = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in INPUTS or tensor.name in texts:
            raise Refused(Reason.INVALID_FIELD, ("inputs", index, "name"))
        if tensor.datatype != "BYTES":
            raise Refused(Reason.INVALID_FIELD, ("inputs", index, "datatype"))
        texts[tensor.name], rest = _texts(tensor, rest, index)
        if prod(tensor.shape) != len(texts[tensor.name]):
            raise Refused(Reason.INVALID_FIELD, ("inputs", index, "shape"))
    if set(texts) != set(INPUTS) or rest:
        raise Refused(Reason.INVALID_FIELD, ("inputs",))
    if len(texts["query"]) not in {1, len(texts["document"])}:
        raise Refused(Reason.UNPAIRED_TEXTS, ("inputs",))
    groups = pair_up(texts["query"], texts["document"], limits, ("inputs", "inputs"))
    (shape,) = (tensor.shape for tensor in request.inputs if tensor.name == "document")
    return ScoringRequest(groups, partial(_answer, _wanted(request), shape, request.id))


def _texts(tensor: Tensor, rest: bytes, index: int) -> tuple[list[str], bytes]:
    """Return a tensor's texts, and the bytes that belong to the next ones."""
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        if tensor.data is None:
            raise Refused(Reason.INVALID_FIELD, ("inputs", index, "data"))
        flat = [text for row in tensor.data for text in ([row] if isinstance(row, str) else row)]
        return flat, rest
    if tensor.data is not None or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise Refused(Reason.INVALID_FIELD, ("inputs", index, "parameters"))
    try:
        return _unpacked(rest[:size]), rest[size:]
    except (struct.error, UnicodeDecodeError):
        raise Refused(Reason.INVALID_FIELD, ("inputs", index)) from None


def _unpacked(packed: bytes) -> list[str]:
    """Return texts that are each preceded by their length in four bytes, little end first."""
    texts, start = [], 0
    while start < len(packed):
        (length,) = struct.unpack_from("<I", packed, start)
        text = packed[start + 4 : start + 4 + length]
        if len(text) != length:
            raise struct.error
        texts.append(str(text, "utf-8"))
        start += 4 + length
    return texts


def _wanted(request: InferRequest) -> list[str]:
    for index, wanted in enumerate(request.outputs or ()):
        if wanted.name not in OUTPUTS:
            raise Refused(Reason.INVALID_FIELD, ("outputs", index, "name"))
    return [wanted.name for wanted in request.outputs or ()] or list(OUTPUTS)


def _answer(
    wanted: Sequence[str], shape: Sequence[int], request_id: str | None, scored: ScoringResult
) -> bytes:
    labels = {product.index: product.label or "" for product in scored.ranking.products}
    data = {"score": scores_in_order(scored), "label": [labels[index] for index in range(len(labels))]}
    answer: dict[str, object] = {
        "model_name": scored.manifest.name,
        "model_version": scored.manifest.version,
        "outputs": [
            {"name": name, "datatype": OUTPUTS[name], "shape": shape, "data": data[name]} for name in wanted
        ],
    }
    if request_id is not None:
        answer["id"] = request_id
    return msgspec.json.encode(answer)


def server_metadata(version: str) -> Mapping[str, object]:
    """Say what `GET /v2` says."""
    return {"name": "shelfrank", "version": version, "extensions": EXTENSIONS}


def model_metadata(manifest: Manifest) -> Mapping[str, object]:
    """Say what a model reads and writes."""
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in INPUTS],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()],
    }


def model_config(manifest: Manifest) -> Mapping[str, object]:
    """Say how a model is configured, as Triton does; it is the metadata in other words."""
    return {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [{"name": name, "data_type": "TYPE_STRING", "dims": [-1]} for name in INPUTS],
        "output": [{"name": name, "data_type": TYPES[kind], "dims": [-1]} for name, kind in OUTPUTS.items()],
    }


def model_stats(manifest: Manifest, stats: ModelStats) -> Mapping[str, object]:
    """Say what a model was asked, as Triton does: an inference is a document, an execution an answer."""
    stages = stats.stages
    return {
        "name": manifest.name,
        "version": manifest.version,
        "last_inference": int(stats.last_s * 1_000),
        "inference_count": stats.documents,
        "execution_count": stats.whole.count + stats.failing.count,
        "inference_stats": {
            "success": _duration(stats.whole),
            "fail": _duration(stats.failing),
            "queue": _duration(stages["queue"]),
            "compute_input": _duration(stages["tokenize"]),
            "compute_infer": _duration(stages["infer"]),
            "compute_output": _duration(stages["respond"]),
            "cache_hit": _duration(stats.cached),
            "cache_miss": {"count": stats.documents - stats.cached.count, "ns": 0},
        },
        "batch_stats": [],
    }


def _duration(total: DurationSum) -> Mapping[str, int]:
    return {"count": total.count, "ns": round(total.seconds * 1e9)}


def wants_ready(body: bytes) -> bool:
    """Read the request for the repository's index: whether only models are asked for that are ready."""
    return bool(decode(_INDEX, body or b"{}").ready)


def model_index(manifest: Manifest, *, is_ready: bool) -> Mapping[str, object]:
    """Say that a model is there, as the repository's index does."""
    state = "READY" if is_ready else "UNAVAILABLE"
    return {"name": manifest.name, "version": manifest.version, "state": state, "reason": ""}


def render_error(reason: Reason, loc: Location, request_id: str) -> ErrorReply:  # noqa: ARG001  the protocol has none
    """Write an error as the protocol does, with Triton's statuses: 400 for invalid, 503 for overloaded."""
    status = {422: 400, 429: 503}.get(reason.status, reason.status)
    return status, msgspec.json.encode({"error": error_message(reason, loc)})
