"""Which paths belong to which API, and in which shape each path writes errors.

Knows paths and dialects; does not know handlers or the framework.
Invariant: a refused request is answered in the error shape of the API that it was sent to.
"""

from collections.abc import Callable
from typing import Final

from service.dialects import cohere, jina, kserve, nvidia, openai, shared, tei, vllm, voyage
from service.dialects.dialect import Dialect, RenderError

DetectDialect = Callable[[bytes], Dialect]
RERANK: Final = "/v1/rerank"
RERANK_TOO: Final = ("/reranking", "/v1/reranking")
"""llama.cpp's names of it."""

# Paths of other APIs: how the dialect of a request is detected, and how errors are written until it is.
FOREIGN: Final[dict[str, tuple[DetectDialect, RenderError]]] = {
    "/": (shared.detect_at_root, tei.render_error),
    "/rerank": (shared.detect_at_rerank, tei.render_error),
    "/predict": (lambda _: tei.PREDICT, tei.render_error),
    **dict.fromkeys(("/score", "/v1/score"), (lambda _: vllm.SCORE, vllm.render_error)),
    **dict.fromkeys(("/vllm/score", "/vllm/v1/score"), (lambda _: vllm.SCORE, vllm.render_error)),
    **dict.fromkeys(
        ("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), (lambda _: vllm.RERANK, vllm.render_error)
    ),
    # Cohere's clients add `v1/rerank` or `v2/rerank` to a base, others `rerank` alone
    **dict.fromkeys(
        ("/cohere/rerank", "/cohere/v1/rerank", "/cohere/v2/v1/rerank"),
        (lambda _: cohere.V1, cohere.render_error),
    ),
    **dict.fromkeys(
        ("/v2/rerank", "/cohere/v2/rerank", "/cohere/v2/v2/rerank"),
        (lambda _: cohere.V2, cohere.render_error),
    ),
    "/jina/v1/rerank": (lambda _: jina.JINA, jina.render_error),
    "/voyage/v1/rerank": (lambda _: voyage.VOYAGE, voyage.render_error),
    "/v1/ranking": (lambda _: nvidia.RANKING, nvidia.render_error),
}
KSERVE: Final = "/v2"
"""Every path of the Open Inference Protocol begins so, and no other path but Cohere's does."""

# Whose every path is that begins so, be there anything or not.
BELOW: Final[dict[str, RenderError]] = {
    KSERVE: kserve.render_error,
    "/cohere": cohere.render_error,
    "/jina": jina.render_error,
    "/v1/models": openai.render_error,
    "/vllm": vllm.render_error,
    "/voyage": voyage.render_error,
}


def error_renderer_at(path: str, method: str) -> RenderError:
    """Return how errors are written for a request of which only the path is known."""
    if path in FOREIGN and not (path == "/" and method != "POST"):
        return FOREIGN[path][1]
    renderers = (
        render_error for base, render_error in BELOW.items() if path == base or path.startswith(base + "/")
    )
    return next(renderers, shared.render_error)
