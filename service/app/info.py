"""The handlers that describe this server in the form of other APIs: TEI, vLLM, the Open Inference Protocol.

Knows what is served and whether it is ready; does not know paths, or how anything is ranked.
Invariant: the answers are facts of the settings and of bundles, and wait for nothing.
"""

import msgspec
from fastapi import Request, Response

from service.dialects import kserve
from service.errors import Reason, Refused
from service.http.guard import read_body
from service.http.middleware import JsonResponse
from service.process.lifecycle import Lifecycle
from service.rollout.versions import Version, Versions
from service.settings import Settings


class InfoApi:
    """The handlers of one application."""

    def __init__(self, settings: Settings, versions: Versions, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._versions = versions
        self._lifecycle = lifecycle

    async def info(self, request: Request) -> Response:
        """Say what is served here, as text-embeddings-inference does."""
        info = _tei_info(self._versions.stable, self._settings, request.app.version)
        return JsonResponse(msgspec.json.encode(info))

    async def version(self, request: Request) -> Response:
        """Say which version this is, as vLLM does."""
        return JsonResponse(msgspec.json.encode({"version": request.app.version}))

    async def index(self, request: Request) -> Response:
        """List the models, as the Open Inference Protocol's repository does."""
        limit = self._settings.max_body_bytes
        body = await read_body(request.scope["headers"], request.receive, limit, typed=False)
        is_ready = self._lifecycle.is_ready
        listed = [
            kserve.model_index(version.model.bundle.manifest, is_ready=is_ready)
            for version in ([] if kserve.wants_ready(body) and not is_ready else self._versions.roles())
        ]
        return JsonResponse(msgspec.json.encode(listed))

    async def config(self, request: Request) -> Response:
        """Say how a model is configured, as Triton does."""
        manifest = version_in_path(request, self._versions).model.bundle.manifest
        return JsonResponse(msgspec.json.encode(kserve.model_config(manifest)))

    async def stats(self, request: Request) -> Response:
        """Say what a model was asked, or all of them if the path names none, as Triton does."""
        named = "model" in request.path_params
        versions = [version_in_path(request, self._versions)] if named else self._versions.roles()
        stats = [kserve.model_stats(version.model.bundle.manifest, version.stats) for version in versions]
        return JsonResponse(msgspec.json.encode({"model_stats": stats}))


def version_in_path(request: Request, versions: Versions) -> Version:
    """Return the model that a path names, with its version or without; Refused if it is not served."""
    version = versions.by_name(request.path_params["model"])
    wanted = request.path_params.get("version")
    if version is None or wanted not in {None, version.facts.version}:
        raise Refused(Reason.MODEL_NOT_FOUND)
    return version


def _tei_info(stable: Version, settings: Settings, version: str) -> dict[str, object]:
    facts = stable.facts
    names = [label.name for label in facts.labels]
    return {
        "model_id": facts.id,
        "model_sha": facts.bundle,
        "model_dtype": facts.precision,
        "model_type": {
            "reranker": {
                "id2label": {str(index): name for index, name in enumerate(names)},
                "label2id": {name: index for index, name in enumerate(names)},
            }
        },
        "max_concurrent_requests": settings.queue_tokens // facts.text.max_length,
        "max_input_length": facts.text.max_length,
        "max_batch_tokens": settings.queue_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_documents,
        "auto_truncate": True,
        "tokenization_workers": len(stable.model.sessions),
        "version": version,
        "sha": None,
        "docker_label": None,
    }
