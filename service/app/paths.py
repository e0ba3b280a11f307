"""Which paths speak which API, and in which shape each path refuses.

Knows paths and dialects; does not know handlers or the framework.
Invariant: a refused request is answered in the error shape of the API that it was sent to.
"""

from collections.abc import Callable
from typing import Final

from service.dialects import cohere, jina, kserve, nvidia, openai, shared, tei, vllm, voyage
from service.dialects.dialect import Dialect, Refuse

Tell = Callable[[bytes], Dialect]
RERANK: Final = "/v1/rerank"
RERANK_TOO: Final = ("/reranking", "/v1/reranking")
"""llama.cpp's names of it."""

# Where other APIs are spoken: how a request is told apart, and how it is refused until it has been.
FOREIGN: Final[dict[str, tuple[Tell, Refuse]]] = {
    "/": (shared.at_root, tei.refuse),
    "/rerank": (shared.at_rerank, tei.refuse),
    "/predict": (lambda _: tei.PREDICT, tei.refuse),
    **dict.fromkeys(("/score", "/v1/score"), (lambda _: vllm.SCORE, vllm.refuse)),
    **dict.fromkeys(("/vllm/score", "/vllm/v1/score"), (lambda _: vllm.SCORE, vllm.refuse)),
    **dict.fromkeys(
        ("/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"), (lambda _: vllm.RERANK, vllm.refuse)
    ),
    # Cohere's clients add `v1/rerank` or `v2/rerank` to a base, others `rerank` alone
    **dict.fromkeys(
        ("/cohere/rerank", "/cohere/v1/rerank", "/cohere/v2/v1/rerank"), (lambda _: cohere.V1, cohere.refuse)
    ),
    **dict.fromkeys(
        ("/v2/rerank", "/cohere/v2/rerank", "/cohere/v2/v2/rerank"), (lambda _: cohere.V2, cohere.refuse)
    ),
    "/jina/v1/rerank": (lambda _: jina.JINA, jina.refuse),
    "/voyage/v1/rerank": (lambda _: voyage.VOYAGE, voyage.refuse),
    "/v1/ranking": (lambda _: nvidia.RANKING, nvidia.refuse),
}
KSERVE: Final = "/v2"
"""Every path of the Open Inference Protocol begins so, and no other path but Cohere's does."""

# Whose every path is that begins so, be there anything or not.
BELOW: Final[dict[str, Refuse]] = {
    KSERVE: kserve.refuse,
    "/cohere": cohere.refuse,
    "/jina": jina.refuse,
    "/v1/models": openai.refuse,
    "/vllm": vllm.refuse,
    "/voyage": voyage.refuse,
}


def refuse_at(path: str, method: str) -> Refuse:
    """Return how a request is refused as long as nothing but its path tells whose it is."""
    if path in FOREIGN and not (path == "/" and method != "POST"):
        return FOREIGN[path][1]
    told = (refuse for base, refuse in BELOW.items() if path == base or path.startswith(base + "/"))
    return next(told, shared.refuse)
